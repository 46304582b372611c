//! `lockstep top` as a process: without a terminal, and on one.

use crate::common::{FakeEngine, Place, wait_for, web};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

/// What takes the terminal over, and what gives it back (`tput smcup` and `rmcup`).
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// An engine with one service and traffic, under a daemon.
fn running(place: &Place) -> (FakeEngine, crate::common::Daemon) {
    let engine = place.engine();
    let daemon = place.daemon();
    wait_for("the file in force", || place.status("/daemon/epoch") == 1);
    engine.forward(2_500);
    (engine, daemon)
}

#[test]
fn without_a_terminal_it_prints_the_rates_once() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _running = running(&place);
    let quick = ["top", "--interval", "100ms"];
    place.lockstep(&quick).expect(
        0,
        &[
            "2,500 packets/s",
            "web      203.0.113.10:80/tcp      2,500",
            "no_neighbour",
        ],
    );
    let json = place.lockstep(&["top", "--once", "--interval", "100ms", "--output", "json"]);
    assert_eq!(json.code, 0);
    assert_eq!(json.json()["vips"][0]["packets_per_second"], 2_500.0);
    place
        .lockstep(&["top", "--interval", "1ms"])
        .expect(2, &["100ms at least"]);
}

#[test]
fn without_an_engine_it_says_so() {
    let place = Place::new(&web(&["10.0.0.1"]));
    place
        .lockstep(&["top", "--once"])
        .expect(3, &["lockstep-engine is not running"]);
}

/// `lockstep top` on a terminal of its own.
struct OnTerminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<String>>,
    terminal: OwnedFd,
}

impl OnTerminal {
    fn start(place: &Place) -> Self {
        let size = Winsize {
            ws_row: 30,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let side = || slave.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(["top", "--interval", "100ms"])
            .env("LOCKSTEP_ENGINE_SOCKET", place.engine_socket())
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        let mut output = File::from(master.try_clone().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..n]);
                to.lock().unwrap().push_str(&text);
            }
        });
        OnTerminal {
            child,
            keys: File::from(master),
            shown,
            terminal: slave,
        }
    }

    fn has_shown(&self, part: &str) -> bool {
        self.shown.lock().unwrap().contains(part)
    }

    /// Whether the terminal echoes and reads lines, as a shell's does.
    fn is_cooked(&self) -> bool {
        let flags = tcgetattr(&self.terminal).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    }

    /// Waits until it shows rates on a terminal that it has taken over.
    fn wait(&self) {
        wait_for("rates on the terminal", || self.has_shown("2,500"));
        assert!(self.has_shown(ENTER) && !self.is_cooked());
    }

    /// Checks that it ends well, with the terminal as it was.
    fn ends(mut self) {
        let mut code = None;
        wait_for("its end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        assert_eq!(code.unwrap().code(), Some(0));
        assert!(self.is_cooked());
        wait_for("the shell's screen", || self.has_shown(LEAVE));
    }
}

#[test]
fn on_a_terminal_it_is_live_until_q() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _running = running(&place);
    let mut top = OnTerminal::start(&place);
    top.wait();
    assert!(top.has_shown("q quit") && top.has_shown("203.0.113.10:80/tcp"));
    top.keys.write_all(b"q").unwrap();
    top.ends();
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let _running = running(&place);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let top = OnTerminal::start(&place);
        top.wait();
        kill(Pid::from_raw(top.child.id().try_into().unwrap()), signal).unwrap();
        top.ends();
    }
}

#[test]
fn an_engine_that_goes_away_is_waited_for() {
    let place = Place::new(&web(&["10.0.0.1"]));
    let (engine, _daemon) = running(&place);
    let mut top = OnTerminal::start(&place);
    top.wait();
    engine.kill();
    // Only what differs from the line before is drawn: after the first sentence no other is whole.
    let says = ["has ended", "is not running"];
    wait_for("what is wrong", || {
        says.iter().any(|part| top.has_shown(part))
    });
    let engine = place.engine();
    wait_for("the file in force again", || engine.epoch() > 0);
    engine.forward(7_700);
    wait_for("rates again", || top.has_shown("7,700"));
    // As Ctrl-C, which is a byte here and no signal.
    top.keys.write_all(b"\x03").unwrap();
    top.ends();
}
