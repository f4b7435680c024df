//! Amazon S3, Azure Blob Storage, Google Cloud Storage and what speaks like them: cargo features `aws`, `azure`, `gcp`.

use object_store::ObjectStoreScheme;
use url::Url;

use super::{Bucket, BucketError, BucketErrorKind};

/// Options come from the environment, the place from the URL.
pub(super) fn connect(url: &Url) -> Result<Bucket, BucketError> {
    let invalid = |message: &str| BucketError::new(BucketErrorKind::Invalid, message.to_owned());
    let (scheme, prefix) =
        ObjectStoreScheme::parse(url).map_err(|error| invalid("not a store's URL").with_source(error))?;
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
            built(builder.with_retry(retry()).build(), prefix.as_ref())
        }
        _ => {
            let _ = prefix;
            Err(invalid(&format!(
                "{}: stores were not built in; build with --features aws, azure or gcp",
                url.scheme()
            )))
        }
    }
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
            Err(BucketError::new(BucketErrorKind::Invalid, message).with_source(error))
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
