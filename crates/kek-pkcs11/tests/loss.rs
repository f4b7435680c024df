//! Tokens that go and come back, and modules that hang.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bulla_kek::KekErrorKind;

use crate::support::{describe, options, provider, wrap};
use crate::token::{Kind, on_token};

/// Whatever a call meets in the middle of a removal: an outage at most, never a verdict on the key or the data.
fn comes_and_goes(test: &str, kind: Kind) {
    on_token(test, kind, async |token| {
        token.manage("aes k 01");
        let provider = provider(options(&token));
        let wrapped = Arc::new(wrap(&provider, "k").await.unwrap());
        let (stop, served, refused) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let traffic: Vec<_> = (0..6)
            .map(|_| {
                let (provider, wrapped) = (provider.clone(), wrapped.clone());
                let (stop, served, refused) = (stop.clone(), served.clone(), refused.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        match wrapped.unwrap(&provider).await {
                            Ok(()) => served.fetch_add(1, Ordering::Relaxed),
                            Err(error) if error.kind() == KekErrorKind::Unavailable => {
                                refused.fetch_add(1, Ordering::Relaxed)
                            }
                            Err(error) => panic!("{:?}: {error}", error.kind()),
                        };
                    }
                })
            })
            .collect();
        let more = |counter: Arc<AtomicU32>| async move {
            let before = counter.load(Ordering::Relaxed);
            while counter.load(Ordering::Relaxed) < before + 5 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        for _ in 0..5 {
            more(served.clone()).await;
            token.remove();
            more(refused.clone()).await;
            token.insert();
        }
        more(served).await;
        stop.store(true, Ordering::Relaxed);
        for task in traffic {
            task.await.unwrap();
        }
    });
}

#[test]
fn softhsm_token_removed_and_inserted_in_the_middle_of_traffic() {
    comes_and_goes("loss::softhsm_token_removed_and_inserted_in_the_middle_of_traffic", Kind::SoftHsm);
}

#[test]
fn kryoptic_token_removed_and_inserted_in_the_middle_of_traffic() {
    comes_and_goes("loss::kryoptic_token_removed_and_inserted_in_the_middle_of_traffic", Kind::Kryoptic);
}

#[test]
fn a_token_that_is_not_there_at_first_is_found_once_it_is() {
    on_token("loss::a_token_that_is_not_there_at_first_is_found_once_it_is", Kind::SoftHsm, async |token| {
        token.manage("aes k 01");
        token.remove();
        let provider = provider(options(&token));
        let error = describe(&provider, "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
        token.insert();
        wrap(&provider, "k").await.unwrap().unwrap(&provider).await.unwrap();
    });
}

#[test]
fn a_module_that_is_not_there_is_unavailable_and_named() {
    on_token("loss::a_module_that_is_not_there_is_unavailable_and_named", Kind::SoftHsm, async |token| {
        let mut options = options(&token);
        options.module = token.file("nothing.so");
        let error = describe(&provider(options), "k").await.unwrap_err();
        assert_eq!(error.kind(), KekErrorKind::Unavailable);
        assert!(error.to_string().contains("nothing.so"), "{error}");
        assert!(error.to_string().contains("BULLA_PKCS11_MODULE"), "{error}");
    });
}

/// SoftHSM2 reads a file that counts the changes of a token, and waits for ever where that is a pipe nobody writes to.
#[test]
fn a_hanging_module_is_unavailable_in_time_and_heals() {
    on_token("loss::a_hanging_module_is_unavailable_in_time_and_heals", Kind::SoftHsm, async |token| {
        token.manage("aes k 01");
        let mut options = options(&token);
        options.max_sessions = 2;
        options.call_timeout = Duration::from_millis(500);
        let provider = provider(options);
        let wrapped = Arc::new(wrap(&provider, "k").await.unwrap());

        let folder = std::fs::read_dir(token.tokens()).unwrap().next().unwrap().unwrap().path();
        let (count, aside) = (folder.join("generation"), folder.join("aside"));
        std::fs::rename(&count, &aside).unwrap();
        assert!(Command::new("mkfifo").arg(&count).status().unwrap().success());

        let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        let before = threads();
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                let (provider, wrapped) = (provider.clone(), wrapped.clone());
                tokio::spawn(async move { wrapped.unwrap(&provider).await })
            })
            .collect();
        for call in crowd {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), KekErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("did not answer within 0.5 s"), "{error}");
        }
        assert!(threads() <= before + 2, "{} threads, {before} before", threads());

        // A pipe opened for both has a reader, so writing to it does not wait.
        let mut pipe = OpenOptions::new().read(true).write(true).open(&count).unwrap();
        std::fs::rename(&aside, &count).unwrap();
        let healed = async {
            while wrapped.unwrap(&provider).await.is_err() {
                pipe.write_all(&[0; 64]).unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), healed).await.unwrap();
    });
}
