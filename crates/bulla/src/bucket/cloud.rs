//! Amazon S3, Azure Blob Storage, Google Cloud Storage and what speaks like them: cargo features `aws`, `azure`, `gcp`.

use object_store::ObjectStoreScheme;
use url::Url;

use super::{Bucket, BucketError, BucketErrorKind};

/// Options come from the environment, the place from the URL.
pub(super) fn connect(url: &Url) -> Result<Bucket, BucketError> {
    let (scheme, prefix) =
        ObjectStoreScheme::parse(url).map_err(|error| invalid("not a store's URL").with_source(error))?;
    #[cfg(feature = "cloud")]
    provide_tls()?;
    match scheme {
        #[cfg(feature = "aws")]
        ObjectStoreScheme::AmazonS3 => {
            let builder = object_store::aws::AmazonS3Builder::from_env().with_url(url.as_str());
            built(builder.with_retry(retry()).build(), prefix.as_ref())
        }
        #[cfg(feature = "azure")]
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = object_store::azure::MicrosoftAzureBuilder::from_env().with_url(url.as_str());
            built(builder.with_retry(retry()).build(), prefix.as_ref())
        }
        #[cfg(feature = "gcp")]
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
            built(builder.with_retry(patient_retry()).build(), prefix.as_ref())
        }
        _ => {
            let _ = prefix;
            Err(invalid(format!("{}: was not built in; build with --features aws,azure,gcp", url.scheme())))
        }
    }
}

fn invalid(message: impl Into<String>) -> BucketError {
    BucketError::new(BucketErrorKind::Invalid, message)
}

/// The HTTP client takes its cryptography from the process's default, which belongs to the program: ours is only
/// for programs that have not chosen.
#[cfg(feature = "cloud")]
fn provide_tls() -> Result<(), BucketError> {
    use rustls::crypto::CryptoProvider;
    if CryptoProvider::get_default().is_some() {
        return Ok(());
    }
    #[cfg(feature = "aws-lc")]
    let provider = Some(rustls::crypto::aws_lc_rs::default_provider());
    #[cfg(all(feature = "ring", not(feature = "aws-lc")))]
    let provider = Some(rustls::crypto::ring::default_provider());
    #[cfg(not(any(feature = "ring", feature = "aws-lc")))]
    let provider: Option<CryptoProvider> = None;
    let provider =
        provider.ok_or_else(|| invalid("no TLS was built in; build with --features aws-lc or ring"))?;
    // Another thread may have been faster, with the same or a better choice.
    let _ = provider.install_default();
    Ok(())
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn built(
    store: object_store::Result<impl object_store::ObjectStore>,
    prefix: &str,
) -> Result<Bucket, BucketError> {
    match store {
        Ok(store) => Bucket::from_object_store(std::sync::Arc::new(store), prefix),
        Err(error) => {
            let message =
                "the store's options in the environment (AWS_…, AZURE_…, GOOGLE_…) are not complete";
            Err(invalid(message).with_source(error))
        }
    }
}

/// Short enough that callers, who retry with a view of the whole, hear of trouble while they can still act on it.
#[cfg(any(feature = "aws", feature = "azure", feature = "gcp"))]
fn retry() -> object_store::RetryConfig {
    use std::time::Duration;
    object_store::RetryConfig {
        backoff: object_store::BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(30),
    }
}

/// Google takes about one write a second of an object and answers 429 to what comes sooner, which is nobody's trouble: a session
/// or a tag is written more often. So it is waited for, at least three seconds and about six.
#[cfg(feature = "gcp")]
fn patient_retry() -> object_store::RetryConfig {
    let mut retry = retry();
    retry.backoff.init_backoff = std::time::Duration::from_millis(250);
    retry.max_retries = 12;
    retry
}
