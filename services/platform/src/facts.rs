//! Following the facts of the one journal: the stream brings them, the engine's fact log fills what it lost.
//!
//! A follower's effect and its position are one transaction. It gathers while nobody waits, and commits at once for a
//! reader who brings a position.

use super::{bus::Bus, context::Context, error::Result};
use fafnir_proto::v1::Fact;
use std::{future::Future, sync::Arc};

/// What a service keeps of the facts.
pub trait Projection: Send + Sync + 'static {
    /// The last position whose effect is stored.
    fn position(&self) -> impl Future<Output = Result<u64>> + Send;
    /// Stores the effects of facts that follow `from` without a gap, and the new position, in one transaction; refuses
    /// where the stored position is not `from` (another replica was faster). Calls never overlap.
    fn apply(&self, from: u64, facts: Vec<Fact>) -> impl Future<Output = Result<()>> + Send;
}

/// A projection that is being kept up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Follower {
    _private: (),
}

impl Follower {
    /// The position that the projection stands at, from memory.
    pub fn position(&self) -> u64 {
        unimplemented!()
    }

    /// Waits until the projection stands at a position; 0 waits for nothing.
    ///
    /// # Errors
    /// UNAVAILABLE with PROJECTION_BEHIND after a second.
    pub async fn wait(&self, _position: u64) -> Result<()> {
        unimplemented!()
    }

    /// The same for a request that carries `x-fafnir-position`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn wait_for<T>(&self, _request: &tonic::Request<T>) -> Result<()> {
        unimplemented!()
    }
}

/// Attaches the projection to stream `facts`, catches up from the engine, and keeps both up until shutdown. `name` is the
/// follower's in `FactsRequest`. Waits for the engine as long as it takes.
pub async fn follow<P: Projection>(
    _ctx: &Context,
    _bus: &Bus,
    _name: &'static str,
    _projection: Arc<P>,
) -> Result<Follower> {
    unimplemented!()
}
