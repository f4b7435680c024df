//! The configured providers, and which of them a key belongs to.

use std::sync::Arc;

use crate::error::KekError;
use crate::key_id::KeyId;
use crate::provider::KekProvider;

/// The providers that local configuration allows, asked in order.
#[derive(Debug, Clone, Default)]
pub struct Providers {
    providers: Vec<Arc<dyn KekProvider>>,
}

impl Providers {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    #[must_use]
    pub fn with(mut self, provider: Arc<dyn KekProvider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Each of them replaced by what `wrap` makes of it, in the same order: how an engine watches the calls.
    #[must_use]
    pub fn map(&self, wrap: impl FnMut(&Arc<dyn KekProvider>) -> Arc<dyn KekProvider>) -> Self {
        Self { providers: self.providers.iter().map(wrap).collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// The first provider that accepts the key.
    ///
    /// # Errors
    /// `Invalid` if none does.
    pub fn provider_for(&self, key: &KeyId) -> Result<Arc<dyn KekProvider>, KekError> {
        self.providers
            .iter()
            .find(|provider| provider.accepts(key))
            .cloned()
            .ok_or_else(|| KekError::invalid(format!("no provider is configured for {key}")))
    }
}
