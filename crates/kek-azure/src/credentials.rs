//! How the process proves who it is.
//!
//! | [`Credentials`] | `Identity::System` | `Identity::User(id)` |
//! |---|---|---|
//! | `Managed` | the machine's system-assigned identity | the user-assigned one with this client id, or resource id (`/subscriptions/…`) |
//! | `Workload` | the service account's (`AZURE_CLIENT_ID`) | the one with this client id |
//! | `Developer` | who is signed in with the Azure CLI | the same: whom the nodes will be is then not what is tested |
//!
//! Client and object ids look alike and can't be told apart, so an id is a client id, as in Azure's resource templates.

use std::env;
use std::fmt;
use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use bulla_kek::{Identity, KekError};

use crate::http::Http;

/// The variables that Azure Workload Identity sets in a pod, beside `AZURE_CLIENT_ID`.
const WORKLOAD: [&str; 2] = ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID"];

/// Where tokens come from. They are cached by the SDK until shortly before they end.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// `Workload` where the environment has its variables (`AZURE_FEDERATED_TOKEN_FILE`, `AZURE_TENANT_ID`), else
    /// `Managed`. Never `Developer`: a node must not run as whoever happened to sign in.
    #[default]
    Automatic,
    /// Managed identities of virtual machines, scale sets, App Service, Container Apps and Functions.
    Managed,
    /// Workload identity of a Kubernetes pod.
    Workload,
    /// The Azure CLI's signed-in user, for trying things out.
    Developer,
    /// The program's own.
    Custom(Arc<dyn CredentialSource>),
}

/// Gives credentials of a program's own making.
pub trait CredentialSource: Send + Sync {
    /// The credential of this identity. It caches its tokens by itself.
    ///
    /// # Errors
    /// [`KekError`], by kind.
    fn credential(&self, identity: &Identity) -> Result<Arc<dyn TokenCredential>, KekError>;
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Automatic => "Automatic",
            Self::Managed => "Managed",
            Self::Workload => "Workload",
            Self::Developer => "Developer",
            Self::Custom(_) => "Custom(…)",
        })
    }
}

impl Credentials {
    pub(crate) fn of(&self, identity: &Identity, http: &Http) -> Result<Arc<dyn TokenCredential>, KekError> {
        match self {
            Self::Automatic if WORKLOAD.iter().all(|name| env::var_os(name).is_some()) => {
                workload(identity, http)
            }
            Self::Automatic | Self::Managed => managed(identity, http),
            Self::Workload => workload(identity, http),
            Self::Developer => developer(),
            Self::Custom(source) => source.credential(identity),
        }
    }
}

fn managed(identity: &Identity, http: &Http) -> Result<Arc<dyn TokenCredential>, KekError> {
    let user_assigned_id = match identity {
        Identity::System => None,
        Identity::User(id) if is_resource_id(id) => Some(UserAssignedId::ResourceId(id.clone())),
        Identity::User(id) => Some(UserAssignedId::ClientId(id.clone())),
    };
    let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options: http.for_identity() };
    match ManagedIdentityCredential::new(Some(options)) {
        Ok(credential) => Ok(credential),
        Err(error) => Err(KekError::unavailable(format!(
            "managed identities can't be used here: {}",
            crate::fault::printable(&error.to_string())
        ))),
    }
}

fn workload(identity: &Identity, http: &Http) -> Result<Arc<dyn TokenCredential>, KekError> {
    let client_id = match identity {
        Identity::System => None,
        Identity::User(id) if is_resource_id(id) => {
            return Err(KekError::invalid(format!(
                "workload identity takes a client id, not the resource id {id}; `az identity show --ids {id}` has it"
            )));
        }
        Identity::User(id) => Some(id.clone()),
    };
    let options = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions { client_options: http.for_identity() },
        client_id,
        ..WorkloadIdentityCredentialOptions::default()
    };
    match WorkloadIdentityCredential::new(Some(options)) {
        Ok(credential) => Ok(credential),
        // Mounted late, or not at all.
        Err(error) => Err(KekError::unavailable(format!(
            "workload identity can't be used here ({}); see that the pod has the label azure.workload.identity/use, and \
             AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE",
            crate::fault::printable(&error.to_string())
        ))),
    }
}

fn developer() -> Result<Arc<dyn TokenCredential>, KekError> {
    match AzureCliCredential::new(None) {
        Ok(credential) => Ok(credential),
        Err(_) => {
            Err(KekError::unavailable("the Azure CLI can't be used here; install it and run `az login`"))
        }
    }
}

fn is_resource_id(id: &str) -> bool {
    id.get(.."/subscriptions/".len()).is_some_and(|start| start.eq_ignore_ascii_case("/subscriptions/"))
}
