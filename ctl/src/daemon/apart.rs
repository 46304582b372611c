//! Tasks that must not be late have a thread to themselves: nothing else the daemon does, such as
//! the conversion of a long file, holds one up.

use std::thread;
use tokio::sync::oneshot;

/// Runs what `task` makes in a thread of this name. The future ends with it.
pub fn run<F>(
    name: &'static str,
    task: impl FnOnce() -> F + Send + 'static,
) -> impl Future<Output = ()> + Send
where
    F: Future<Output = ()>,
{
    let (done, ended) = oneshot::channel::<()>();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(task()),
            Err(error) => tracing::error!("{name}: cannot start a thread: {error}"),
        }
        drop(done);
    });
    if let Err(error) = started {
        tracing::error!("{name}: cannot start a thread: {error}");
    }
    async {
        // The sender that is gone is the sign.
        let _ = ended.await;
    }
}
