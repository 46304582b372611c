//! The terminal: entered, read from, and left as it was found, however the program ends.

use super::screen::Screen;
use crate::cli::Failure;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// Events that wait to be looked at: what a held-down key makes while the engine is asked.
const WAITING: usize = 64;

/// The terminal, taken over until this is dropped; a panic gives it back as well (ratatui's hook).
pub struct Terminal {
    screen: DefaultTerminal,
    events: mpsc::Receiver<Event>,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Terminal {
    /// Takes the terminal over.
    pub fn enter() -> Result<Self, Failure> {
        let hear = |kind| signal(kind).map_err(|error| failed("hear signals", &error));
        // Before the terminal is changed: a signal in between would leave it changed.
        let (terminate, interrupt) = (
            hear(SignalKind::terminate())?,
            hear(SignalKind::interrupt())?,
        );
        let hang_up = hear(SignalKind::hangup())?;
        let screen = ratatui::try_init().map_err(|error| failed("use the terminal", &error))?;
        let (sender, events) = mpsc::channel(WAITING);
        let terminal = Terminal {
            screen,
            events,
            terminate,
            interrupt,
            hang_up,
        };
        // It ends with the process: a read cannot be called off.
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(
                move || {
                    while event::read().is_ok_and(|event| sender.blocking_send(event).is_ok()) {}
                },
            )
            .map_err(|error| failed("read keys", &error))?;
        Ok(terminal)
    }

    /// Shows the screen.
    pub fn draw(&mut self, screen: &mut Screen) -> Result<(), Failure> {
        self.screen
            .draw(|frame| screen.draw(frame))
            .map(|_| ())
            .map_err(|error| failed("draw", &error))
    }

    /// The next event; `None` when the program is to end.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            event = self.events.recv() => event,
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            _ = self.hang_up.recv() => None,
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where it is gone, nothing is left to restore.
        let _ = ratatui::try_restore();
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::Refused(format!(
        "cannot {what}: {error}; `lockstep top --once` needs no terminal"
    ))
}
