//! From method and path to an operation: total, in any case, as Key Vault takes them.

use axum::http::Method;
use bulla_vault::{KeyOperation, Permission};

/// One operation of the API. Names and versions are as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    List,
    Create { name: String },
    Import { name: String },
    Get { name: String, version: Option<String> },
    Versions { name: String },
    Update { name: String, version: Option<String> },
    Delete { name: String },
    Use { operation: KeyOperation, name: String, version: Option<String> },
    ListDeleted,
    GetDeleted { name: String },
    Recover { name: String },
    Purge { name: String },
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// Nothing of Key Vault's keys.
    Unknown,
    /// Key Vault has it, this vault doesn't: signatures, backups, rotation policies.
    Unsupported,
    /// Not with this method.
    Method,
}

/// Key Vault's operations that this vault doesn't have.
const UNSUPPORTED: [&str; 8] =
    ["sign", "verify", "backup", "restore", "rotate", "rotationpolicy", "release", "attestation"];

impl Route {
    /// `/keys[/NAME[/VERSION][/VERB]]`, `/deletedkeys[/NAME[/recover]]`. Slashes more or fewer don't matter: clients
    /// write an absent version as an empty one.
    pub(crate) fn parse(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() || parts.len() > 4 {
            return Err(NoRoute::Unknown);
        }
        let collection = parts.remove(0).to_ascii_lowercase();
        match collection.as_str() {
            "keys" => Self::keys(method, &parts),
            "deletedkeys" => Self::deleted_keys(method, &parts),
            "rng" => Err(NoRoute::Unsupported),
            _ => Err(NoRoute::Unknown),
        }
    }

    fn keys(method: &Method, parts: &[&str]) -> Result<Self, NoRoute> {
        let owned = |part: &&str| (**part).to_owned();
        match (method.as_str(), parts) {
            ("GET", []) => Ok(Self::List),
            ("PUT", [name]) => Ok(Self::Import { name: owned(name) }),
            ("DELETE", [name]) => Ok(Self::Delete { name: owned(name) }),
            ("GET", [name]) => Ok(Self::Get { name: owned(name), version: None }),
            ("PATCH", [name]) => Ok(Self::Update { name: owned(name), version: None }),
            ("GET", [name, verb]) if verb.eq_ignore_ascii_case("versions") => {
                Ok(Self::Versions { name: owned(name) })
            }
            (_, [.., verb]) if parts.len() > 1 && is_unsupported(verb) => Err(NoRoute::Unsupported),
            ("GET", [name, version]) => Ok(Self::Get { name: owned(name), version: Some(owned(version)) }),
            ("PATCH", [name, version]) => {
                Ok(Self::Update { name: owned(name), version: Some(owned(version)) })
            }
            ("POST", [name, verb]) if verb.eq_ignore_ascii_case("create") => {
                Ok(Self::Create { name: owned(name) })
            }
            ("POST", [name, version @ .., verb]) => {
                let operation = operation(verb).ok_or(NoRoute::Unknown)?;
                match version {
                    [] => Ok(Self::Use { operation, name: owned(name), version: None }),
                    [version] => {
                        Ok(Self::Use { operation, name: owned(name), version: Some(owned(version)) })
                    }
                    _ => Err(NoRoute::Unknown),
                }
            }
            (_, [_, ..]) if parts.len() > 2 => Err(NoRoute::Unknown),
            _ => Err(NoRoute::Method),
        }
    }

    fn deleted_keys(method: &Method, parts: &[&str]) -> Result<Self, NoRoute> {
        match (method.as_str(), parts) {
            ("GET", []) => Ok(Self::ListDeleted),
            ("GET", [name]) => Ok(Self::GetDeleted { name: (*name).to_owned() }),
            ("DELETE", [name]) => Ok(Self::Purge { name: (*name).to_owned() }),
            ("POST", [name, verb]) if verb.eq_ignore_ascii_case("recover") => {
                Ok(Self::Recover { name: (*name).to_owned() })
            }
            (_, [_, ..]) if parts.len() > 1 => Err(NoRoute::Unknown),
            _ => Err(NoRoute::Method),
        }
    }

    /// For the audit log; where there is a permission of that name, it is the one that is needed.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Versions { .. } => "listVersions",
            Self::ListDeleted => "listDeleted",
            Self::GetDeleted { .. } => "getDeleted",
            other => other.permission().as_str(),
        }
    }

    /// What an identity needs for it.
    pub(crate) fn permission(&self) -> Permission {
        match self {
            Self::List | Self::Versions { .. } | Self::ListDeleted => Permission::LIST,
            Self::Get { .. } | Self::GetDeleted { .. } => Permission::GET,
            Self::Create { .. } => Permission::CREATE,
            Self::Import { .. } => Permission::IMPORT,
            Self::Update { .. } => Permission::UPDATE,
            Self::Delete { .. } => Permission::DELETE,
            Self::Recover { .. } => Permission::RECOVER,
            Self::Purge { .. } => Permission::PURGE,
            Self::Use { operation, .. } => operation.permission(),
        }
    }

    /// Which key is meant.
    pub(crate) fn key(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::List | Self::ListDeleted => (None, None),
            Self::Get { name, version }
            | Self::Update { name, version }
            | Self::Use { name, version, .. } => (Some(name), version.as_deref()),
            Self::Create { name }
            | Self::Import { name }
            | Self::Versions { name }
            | Self::Delete { name }
            | Self::GetDeleted { name }
            | Self::Recover { name }
            | Self::Purge { name } => (Some(name), None),
        }
    }
}

fn operation(verb: &str) -> Option<KeyOperation> {
    [KeyOperation::WrapKey, KeyOperation::UnwrapKey, KeyOperation::Encrypt, KeyOperation::Decrypt]
        .into_iter()
        .find(|operation| operation.as_str().eq_ignore_ascii_case(verb))
}

fn is_unsupported(verb: &str) -> bool {
    UNSUPPORTED.iter().any(|word| word.eq_ignore_ascii_case(verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: Method, path: &str) -> Result<Route, NoRoute> {
        Route::parse(&method, path)
    }

    #[test]
    fn paths_in_any_case_with_or_without_a_version() {
        let use_of = |version: Option<&str>| {
            let operation = KeyOperation::UnwrapKey;
            Ok(Route::Use { operation, name: "K".into(), version: version.map(str::to_owned) })
        };
        assert_eq!(route(Method::POST, "/keys/K/1/unwrapkey"), use_of(Some("1")));
        assert_eq!(route(Method::POST, "/Keys/K/1/UnwrapKey/"), use_of(Some("1")));
        assert_eq!(route(Method::POST, "//KEYS/K//unwrapKey"), use_of(None));
        assert_eq!(route(Method::POST, "/keys/K/unwrapkey"), use_of(None));
        assert_eq!(route(Method::GET, "/keys/K/"), Ok(Route::Get { name: "K".into(), version: None }));
        assert_eq!(
            route(Method::GET, "/keys/versions/versions"),
            Ok(Route::Versions { name: "versions".into() })
        );
        assert_eq!(route(Method::GET, "/DeletedKeys"), Ok(Route::ListDeleted));
        assert_eq!(route(Method::POST, "/deletedkeys/K/Recover"), Ok(Route::Recover { name: "K".into() }));
    }

    #[test]
    fn what_is_not_there() {
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, ""),
            (Method::GET, "/secrets/s"),
            (Method::GET, "/keys/K/1/2/3"),
            (Method::POST, "/keys/K/1/mangle"),
            (Method::POST, "/keys/K/1/2/wrapkey/x"),
            (Method::GET, "/deletedkeys/K/1"),
        ] {
            assert_eq!(route(method.clone(), path), Err(NoRoute::Unknown), "{method} {path}");
        }
        for (method, path) in [
            (Method::POST, "/keys"),
            (Method::POST, "/keys/K"),
            (Method::HEAD, "/keys/K/1"),
            (Method::PUT, "/deletedkeys/K"),
        ] {
            assert_eq!(route(method.clone(), path), Err(NoRoute::Method), "{method} {path}");
        }
        for (method, path) in [
            (Method::POST, "/keys/K/1/sign"),
            (Method::POST, "/keys/K/Rotate"),
            (Method::GET, "/keys/K/rotationpolicy"),
        ] {
            assert_eq!(route(method.clone(), path), Err(NoRoute::Unsupported), "{method} {path}");
        }
    }
}
