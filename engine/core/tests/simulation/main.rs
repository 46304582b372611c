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
mod seen;
mod server;
mod wire;
mod world;

use dice::{Dice, mix};
use scenario::Scenario;
use seen::Seen;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use world::World;

/// Seeds that every run goes through.
const BASE: u64 = 0x10c5_7e90;

/// Runs one world. An error says how to run it again.
fn run(theme: &Theme, seed: u64) -> Result<Seen, String> {
    let world = || {
        let mut dice = Dice::new(seed);
        let scenario = (theme.draw)(&mut dice);
        World::new(scenario, dice).run()
    };
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(world)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without a text")))
    });
    let name = theme.name;
    if began.elapsed().as_secs() >= 2 {
        eprintln!("slow: {name} {seed:#x} took {:?}", began.elapsed());
    }
    result.map_err(|error| {
        format!(
            "{error}\nrun it again: \
             SIM_SEED={seed:#x} cargo nextest run -p lockstep-core --test simulation {name}"
        )
    })
}

/// A kind of world.
struct Theme {
    name: &'static str,
    draw: fn(&mut Dice) -> Scenario,
    sessions: u64,
    /// Whether what it is for has happened: else it has tested nothing.
    is_tested: fn(&Seen) -> bool,
}

const WEATHER: Theme = Theme {
    name: "weather",
    draw: Scenario::weather,
    sessions: 6_000,
    is_tested: |seen| seen.switched > 0 && seen.evicted > 0,
};
const KILLS: Theme = Theme {
    name: "kills",
    draw: Scenario::kills,
    sessions: 6_000,
    is_tested: |seen| seen.switched > 0 && seen.evicted > 0 && seen.joined > 0,
};
const FREEZES: Theme = Theme {
    name: "freezes",
    draw: Scenario::freezes,
    sessions: 4_000,
    is_tested: |seen| seen.switched > 0 && seen.evicted > 0,
};
const QUORUM: Theme = Theme {
    name: "quorum",
    draw: Scenario::quorum,
    sessions: 3_000,
    is_tested: |seen| seen.diverged > 0 && seen.evicted > 0 && seen.flipped == 0,
};
const CORRUPT: Theme = Theme {
    name: "corrupt",
    draw: Scenario::corrupt,
    sessions: 1_500,
    is_tested: |seen| seen.diverged > 0 && seen.flipped > 0,
};
const BLACKOUT: Theme = Theme {
    name: "blackout",
    draw: Scenario::blackout,
    sessions: 2_000,
    is_tested: |seen| seen.orphaned > 0 && seen.reset > 0 && seen.joined > 0,
};
const CLIENTS: Theme = Theme {
    name: "clients",
    draw: Scenario::clients,
    sessions: 3_000,
    is_tested: |seen| seen.own > 0 && seen.complete > 0,
};
const MEMORY: Theme = Theme {
    name: "memory",
    draw: Scenario::memory,
    sessions: 600,
    is_tested: |seen| seen.lagging > 0 && seen.spilled > 0 && seen.log_cuts > 0,
};
const FLOOD: Theme = Theme {
    name: "flood",
    draw: Scenario::flood,
    sessions: 1_000,
    is_tested: |seen| seen.cookies > 0,
};
const GROUPS: Theme = Theme {
    name: "groups",
    draw: Scenario::groups,
    sessions: 2_000,
    is_tested: |seen| seen.reset > 0 && seen.switched > 0 && seen.evicted > 0 && seen.joined > 0,
};
const BULK: Theme = Theme {
    name: "bulk",
    draw: Scenario::bulk,
    sessions: 120,
    is_tested: |seen| seen.switched > 0 && seen.bytes > 4 << 20,
};

/// Runs worlds of one kind until they have had so many sessions: nine of ten always the same, the
/// others new in each run.
fn simulate(theme: &Theme, factor: u64) {
    let mut total = Seen::default();
    if let Ok(seed) = std::env::var("SIM_SEED") {
        let digits = seed.trim_start_matches("0x");
        let seed = u64::from_str_radix(digits, 16).expect("SIM_SEED is a hexadecimal number");
        match run(theme, seed) {
            Ok(seen) => eprintln!("{seen:#?}"),
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let fresh = mix(fresh.as_nanos() as u64);
    eprintln!("fresh seeds from {fresh:#x}");
    let known = theme
        .name
        .bytes()
        .fold(BASE, |hash, byte| mix(hash ^ u64::from(byte)));
    let sessions = theme.sessions * factor;
    let mut errors = Vec::new();
    for n in 0.. {
        let is_known = total.sessions * 10 < sessions * 9;
        let base = if is_known { known } else { fresh };
        match run(theme, mix(base.wrapping_add(n))) {
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
        (theme.is_tested)(&total),
        "it has not seen what it is for: {total:#?}"
    );
}

/// A test of each theme, and a longer one.
macro_rules! themes {
    ($($name:ident, $long:ident: $theme:expr;)*) => {
        $(
            #[test]
            fn $name() {
                simulate(&$theme, 1);
            }

            #[test]
            #[ignore = "eight times as long: make test-long"]
            fn $long() {
                simulate(&$theme, 8);
            }
        )*
    };
}

themes! {
    weather, weather_long: WEATHER;
    kills, kills_long: KILLS;
    freezes, freezes_long: FREEZES;
    quorum, quorum_long: QUORUM;
    corrupt, corrupt_long: CORRUPT;
    blackout, blackout_long: BLACKOUT;
    clients, clients_long: CLIENTS;
    memory, memory_long: MEMORY;
    flood, flood_long: FLOOD;
    groups, groups_long: GROUPS;
    bulk, bulk_long: BULK;
}
