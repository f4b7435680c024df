//! Upload sessions: each opens, and the data that it names is there. What they hold is no blob yet, so it is not read.

use bulla_envelope::envelope::Extent;
use futures::TryStreamExt;

use super::{LOOKS, Run};
use crate::error::{ErrorKind, Result};

/// How often a session that somebody goes on with is looked at again.
const ATTEMPTS: usize = 5;

impl Run<'_> {
    pub(super) async fn check_sessions(&self) -> Result<()> {
        let checks = self.inner.session_keys().map_ok(|key| self.check_session(key));
        checks.try_buffer_unordered(LOOKS).try_for_each(|()| std::future::ready(Ok(()))).await
    }

    async fn check_session(&self, key: String) -> Result<()> {
        let mut last: Option<(Vec<Extent>, (String, String))> = None;
        for _ in 0..ATTEMPTS {
            let session = match self.inner.patiently(|| self.inner.session_entry(&key)).await {
                Ok(Some(session)) => session,
                // Committed, cancelled or expired since it was listed.
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.damaged(None, key, error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            let extents: Vec<Extent> = session.extents().cloned().collect();
            // The same twice, and still at fault: nobody has replaced data of it meanwhile.
            if let Some((before, (object, what))) = last.take()
                && before == extents
            {
                self.damaged(None, object, format!("{what} (of an upload that is not complete)"));
                break;
            }
            let mut fault = None;
            for extent in &extents {
                fault = fault.or(self.check_extent(extent).await?);
            }
            match fault {
                Some(fault) => last = Some((extents, fault)),
                None => break,
            }
        }
        self.state().report.uploads += 1;
        Ok(())
    }
}
