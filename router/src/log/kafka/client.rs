//! What the library tells of its own accord: log lines, and errors of a whole client.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::health::{Doubt, Health};

/// The context of every client.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) health: Option<Arc<Health>>,
}

impl Context {
    pub(super) fn new(health: &Arc<Health>) -> Self {
        Self { health: Some(Arc::clone(health)) }
    }

    /// Of a client that lives for one task and tells nobody.
    pub(super) fn quiet() -> Self {
        Self { health: None }
    }
}

impl ClientContext for Context {
    /// The library repeats itself for each connection and each try; our own lines say when the brokers go and come.
    fn log(&self, level: RDKafkaLogLevel, what: &str, text: &str) {
        if matches!(level, RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical) {
            tracing::warn!(target: "librdkafka", what, text);
        } else {
            tracing::debug!(target: "librdkafka", what, text);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
        let Some(health) = &self.health else { return };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => health.doubt(Doubt::Grave),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut,
            ) => {
                health.doubt(Doubt::Some);
            }
            Some(RDKafkaErrorCode::Fatal) => health.wake(),
            _ => {}
        }
    }
}

impl ConsumerContext for Context {}
