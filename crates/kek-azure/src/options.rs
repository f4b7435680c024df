//! What local configuration decides.

use std::time::Duration;

use crate::credentials::Credentials;

/// Options of an [`AzureProvider`](crate::AzureProvider): all of them local, none of them a bucket's.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "callers write their own; new options come with new versions")]
pub struct AzureOptions {
    /// How the process proves who it is.
    pub credentials: Credentials,
    /// Hosts beside Azure's own that may be asked, as `HOST` or `HOST:PORT`.
    ///
    /// Whatever resource such a host asks a token for, it gets one: the check that a challenge is for the domain that is
    /// asked can't hold outside Azure's domains. So name only hosts that you trust with a token of this process.
    pub extra_hosts: Vec<String>,
    /// Certificates (PEM, any number) to trust beside the system's.
    pub extra_ca_pem: Vec<u8>,
    /// The longest that a connection may take to be made. Default 3 s.
    pub connect_timeout: Duration,
    /// The longest that one request may take, connecting included. Default 5 s.
    pub request_timeout: Duration,
    /// How often a call is tried while there is no useful answer. Default 3.
    pub attempts: u32,
    /// The longest that a whole call may take: all attempts, the requests for tokens and the waits between. Default 20 s,
    /// less than half the default revocation bound, so that the next renewal finds out about an outage by itself. Who asks the
    /// same while a call is out waits for that first, at most as long again.
    pub give_up_after: Duration,
    /// How old the description of a key may be that an RSA wrap relies on (enabled, in its validity, `wrapKey` permitted).
    /// Default 60 s: the renewals of a store in use bring fresher ones, so that its wraps make no requests.
    pub description_max_age: Duration,
}

impl Default for AzureOptions {
    fn default() -> Self {
        Self {
            credentials: Credentials::Automatic,
            extra_hosts: Vec::new(),
            extra_ca_pem: Vec::new(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            attempts: 3,
            give_up_after: Duration::from_secs(20),
            description_max_age: Duration::from_secs(60),
        }
    }
}
