//! A seeded simulation of replicated sessions: thousands of them, through packets that are lost,
//! repeated, reordered, delayed and garbled, while servers are killed, frozen, cut off and started
//! again. Time is virtual; only the engine's part, the `Replicator`, is the real thing.
//!
//! Every client checks every byte and every end; every replica's input is compared with what its
//! client has sent; and in the end nothing may be left.
//!
//! A world that fails prints the command that runs it again. `SIM_TRACE=1` tells what happens in it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic, and says what it has found"
)]

mod client;
mod dice;
mod disk;
mod havoc;
mod peer;
mod program;
mod scenario;
mod server;
mod wire;
mod world;

use dice::{Dice, mix};
use scenario::Scenario;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};
use world::{Seen, World};

/// Seeds that every run goes through.
const BASE: u64 = 0x10c5_7e90;

/// Runs one world. An error says how to run it again.
fn run(theme: &str, draw: fn(&mut Dice) -> Scenario, seed: u64) -> Result<Seen, String> {
    let world = || {
        let mut dice = Dice::new(seed);
        let scenario = draw(&mut dice);
        World::new(scenario, dice).run()
    };
    let result = catch_unwind(AssertUnwindSafe(world)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a text")))
    });
    result.map_err(|error| {
        format!(
            "{error}\nrun it again: \
             SIM_SEED={seed:#x} cargo nextest run -p lockstep-core --test simulation {theme}"
        )
    })
}

/// Runs worlds of one kind until they have had so many sessions: a fixed nine of ten, the others
/// new in each run.
fn simulate(
    theme: &str,
    draw: fn(&mut Dice) -> Scenario,
    sessions: u64,
    is_tested: impl FnOnce(&Seen) -> bool,
) {
    let mut total = Seen::default();
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let digits = seed.trim_start_matches("0x");
        let seed = u64::from_str_radix(digits, 16).expect("SIM_SEED is a hexadecimal number");
        match run(theme, draw, seed) {
            Ok(seen) => eprintln!("{seen:#?}"),
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let fresh = mix(fresh.as_nanos() as u64);
    eprintln!("fresh seeds from {fresh:#x}");
    let name = theme
        .bytes()
        .fold(BASE, |hash, byte| mix(hash ^ u64::from(byte)));
    let mut errors = Vec::new();
    for n in 0.. {
        let base = if total.sessions * 10 < sessions * 9 {
            name
        } else {
            fresh
        };
        match run(theme, draw, mix(base.wrapping_add(n))) {
            Ok(seen) => total.add(&seen),
            Err(error) => errors.push(error),
        }
        if total.sessions >= sessions || errors.len() >= 3 {
            break;
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n\n"));
    eprintln!("{total:#?}");
    assert!(
        is_tested(&total),
        "it has not seen what it is for: {total:#?}"
    );
}

#[test]
fn weather() {
    simulate("weather", Scenario::weather, 2_500, |seen| {
        seen.switched > 0
    });
}

#[test]
fn kills() {
    simulate("kills", Scenario::kills, 2_000, |seen| {
        seen.switched > 0 && seen.evicted > 0 && seen.joined > 0
    });
}

#[test]
fn freezes() {
    simulate("freezes", Scenario::freezes, 1_500, |seen| {
        seen.switched > 0 && seen.evicted > 0
    });
}

#[test]
fn quorum() {
    simulate("quorum", Scenario::quorum, 1_500, |seen| {
        seen.diverged > 0 && seen.evicted > 0
    });
}

#[test]
fn corrupt() {
    simulate("corrupt", Scenario::corrupt, 500, |seen| seen.diverged > 0);
}

#[test]
fn blackout() {
    simulate("blackout", Scenario::blackout, 600, |seen| {
        seen.orphaned > 0 && seen.reset > 0 && seen.joined > 0
    });
}

#[test]
fn clients() {
    simulate("clients", Scenario::clients, 1_000, |seen| {
        seen.own > 0 && seen.complete > 0
    });
}

#[test]
fn memory() {
    simulate("memory", Scenario::memory, 400, |seen| seen.lagging > 0);
}

#[test]
fn flood() {
    simulate("flood", Scenario::flood, 500, |seen| seen.cookies > 0);
}

#[test]
fn bulk() {
    simulate("bulk", Scenario::bulk, 60, |seen| seen.bytes > 1 << 20);
}
