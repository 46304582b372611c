//! Serves random numbers, the same ones to every replica.
//!
//! [`server`] has the connections, [`numbers`] what is answered, [`log`] what is kept on disk and
//! [`source`] the service that numbers may come from.

use super::group::Shared;
use super::parts::{Ending, Wires};
use super::privileges;
use lockstep_ctl_core::config::random::Random;
use numbers::Service;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

mod log;
mod numbers;
mod server;
mod source;

/// How often it is tried to listen where that fails.
const RETRY: Duration = Duration::from_secs(2);

/// Listens where the configuration says, until the daemon ends.
pub async fn run(mut wires: Wires, shared: Shared) {
    loop {
        let random = wires.config.borrow_and_update().random.clone();
        let mut config = wires.config.clone();
        let ending = wires.ending.clone();
        let serve = async {
            match &random {
                None => {
                    wires.reports.group.send_modify(|reply| reply.random = None);
                    std::future::pending().await
                }
                Some(settings) => serve(&wires, settings, shared.clone()).await,
            }
        };
        tokio::select! {
            () = serve => {}
            () = ended(ending) => return,
            changed = async {
                while config.changed().await.is_ok() {
                    if config.borrow().random != random {
                        return true;
                    }
                }
                false
            } => if !changed {
                return;
            }
        }
    }
}

async fn ended(mut ending: watch::Receiver<Ending>) {
    // A sender that is gone means the end too.
    let _ = ending.wait_for(|e| *e != Ending::Running).await;
}

/// Serves for ever.
async fn serve(wires: &Wires, settings: &Random, shared: Shared) {
    let service = Service::new(wires, settings, shared);
    let service = Arc::new(service);
    let mut said = String::new();
    loop {
        match privileges::listen(settings.listen) {
            Ok(listener) => {
                let at = listener.local_addr().unwrap_or(settings.listen);
                tracing::info!(listen = %at, "serving random numbers");
                said.clear();
                service.listening(Ok(at));
                server::run(listener, Arc::clone(&service)).await;
            }
            Err(error) => {
                let text = cannot_listen(settings, &error);
                // Once a reason, not once a try.
                if text != said {
                    tracing::error!("{text}");
                    said.clone_from(&text);
                }
                service.listening(Err(text));
            }
        }
        sleep_until(Instant::now() + RETRY).await;
    }
}

fn cannot_listen(settings: &Random, error: &io::Error) -> String {
    format!(
        "cannot serve random numbers at {}: {error}; give `listen` in [random] an address and a \
         port of this host that nobody else uses",
        settings.listen
    )
}
