//! Waits until no packets come for VIPs any more: a router that was told to send them elsewhere
//! needs a moment to.

use lockstep_api::StatusRequest;
use lockstep_api::engine_client::EngineClient;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::Channel;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// How long the engine may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// Looks in a row that must see nothing.
const LOOKS: u8 = 10;

/// Waits until the engine has seen no packet for a second, or is gone.
pub async fn wait(engine: &watch::Receiver<Option<EngineClient<Channel>>>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut same) = (None, 0);
    while same < LOOKS {
        looks.tick().await;
        let Some(client) = engine.borrow().clone() else {
            return;
        };
        let now = packets(client).await;
        // An engine that does not answer in time says nothing about traffic.
        let is_same = now.is_some() && now == before;
        same = if is_same { same + 1 } else { 0 };
        before = now;
    }
}

/// The packets that came for VIPs so far.
async fn packets(mut engine: EngineClient<Channel>) -> Option<u64> {
    let status = timeout(ANSWER, engine.status(StatusRequest {})).await;
    let status = status.ok()?.ok()?.into_inner();
    let vips = status.services.iter().flat_map(|s| &s.vips);
    Some(vips.map(|vip| vip.packets).sum())
}
