//! The simulated market: agents with real accounts that trade through the same doors as everybody.

use crate::platform::Context;

/// Starts the agents; resolves when the opening book stands.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    anyhow::bail!("{} has no simulated market in this build", ctx.service)
}
