//! Rules about what may be written in a source file.

use crate::source::SourceFile;
use crate::{assert_none, root, sources};
use lockstep_plan::DropReason;
use std::collections::BTreeSet;

/// The folder that may use `unsafe`: AF_XDP's rings are shared with the kernel.
const UNSAFE: &str = "engine/xsk/";
/// Includes libbpf-cargo's output, which is `unsafe` throughout, and has none of its own.
const SKELETON: &str = "bpf/src/skeleton.rs";
/// Its crate can only `deny`, as in the workspace's lints: `forbid` cannot be lifted for a module.
const SKELETONS_CRATE: &str = "bpf/";
/// Lines of a file without its tests, and of a file of tests.
const MAX_LINES: usize = 600;
const MAX_TEST_LINES: usize = 1_000;
/// The lab's wait-until helper sleeps between two looks at its condition.
const WAITS: [&str; 2] = ["tests/src/lab/wait.rs", "ctl/tests/programs/common/mod.rs"];
/// What sends at given times: an open loop waits for nothing else.
const PACES: &str = "perf/src/experiments/portable/paced.rs";

fn at(file: &SourceFile, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", file.path)
}

/// Every place of a pattern in these files that `wrong` says is one.
fn places(
    files: &[SourceFile],
    what: &str,
    pattern: &[&str],
    wrong: impl Fn(&SourceFile, bool) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let hits = file.find(pattern).filter(|token| wrong(file, token.test));
        found.extend(hits.map(|token| at(file, token.line, what)));
    }
    found
}

#[test]
fn unsafe_code_stands_in_the_xsk_crate_only() {
    let outside = |file: &SourceFile, _| !file.path.starts_with(UNSAFE);
    let found = places(&sources(), "`unsafe`", &["unsafe"], outside);
    assert_none("`unsafe` is for engine/xsk only:", found);
}

/// Without `forbid`, an inner `allow` would be enough to let `unsafe` in, macros' included.
#[test]
fn every_other_crate_forbids_unsafe_code() {
    let forbids = |file: &SourceFile| {
        let pattern = ["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
        file.find(&pattern).next().is_some()
    };
    let roots = crate::crates::roots();
    let found = sources()
        .into_iter()
        .filter(|file| roots.contains(&file.path) && !file.path.starts_with(UNSAFE))
        .filter(|file| !file.path.starts_with(SKELETONS_CRATE) && !forbids(file))
        .map(|file| at(&file, 1, "add `#![forbid(unsafe_code)]`"));
    assert_none("Crates without `unsafe` say so:", found.collect());
}

#[test]
fn unsafe_code_is_allowed_where_generated_code_is_included_only() {
    let (files, mut found) = (sources(), Vec::new());
    for attribute in ["allow", "expect"] {
        for file in &files {
            let may = file.path.starts_with(UNSAFE) || file.path == SKELETON;
            let pattern = [attribute, "(", "unsafe_code"];
            let hits = file.find(&pattern).filter(|_| !may);
            found.extend(hits.map(|token| at(file, token.line, attribute)));
        }
    }
    assert_none("The lint `unsafe_code` stays on:", found);
}

#[test]
fn files_are_short_enough_to_be_read() {
    let long = sources().into_iter().filter_map(|file| {
        let limit = match file.test {
            true => MAX_TEST_LINES,
            false => MAX_LINES,
        };
        let what = format!("{} lines, at most {limit}", file.lines);
        (file.lines > limit).then(|| at(&file, 1, &what))
    });
    assert_none("Look for the second noun in these files:", long.collect());
}

#[test]
fn nothing_that_ships_unwraps() {
    let ships = |file: &SourceFile, test: bool| !test && !file.test;
    let found = places(&sources(), "unwrap()", &[".", "unwrap", "(", ")"], ships);
    assert_none(
        "`expect` says why it cannot happen, an error says what to do:",
        found,
    );
}

#[test]
fn nothing_is_left_to_be_done_or_printed_for_debugging() {
    let (files, mut found) = (sources(), Vec::new());
    for name in ["todo", "unimplemented", "dbg"] {
        found.extend(places(&files, &format!("{name}!"), &[name, "!"], |_, _| {
            true
        }));
    }
    assert_none("These do not ship:", found);
}

/// A time that is long enough here is too short on a busy machine, and too long everywhere else.
#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let in_tests = |file: &SourceFile, test: bool| {
        let lab = file.path.starts_with("tests/") || file.path.starts_with("perf/");
        (test || lab) && !WAITS.contains(&file.path.as_str()) && file.path != PACES
    };
    let found = places(&sources(), "sleep", &["sleep", "("], in_tests);
    let rule = format!("Wait with a wait-until helper ({}):", WAITS.join(", "));
    assert_none(&rule, found);
}

/// What names every reason, or says what would be dropped, and drops nothing.
const DROPS_NOTHING: [&str; 2] = ["engine/plan/src/drop.rs", "engine/core/src/explain.rs"];

/// The reasons that a file gives: each `DropReason::X` that ships, but not what an array of
/// verdicts is filled with before there are any, `[Verdict::Drop(DropReason::X); BURST]`.
fn reasons(file: &SourceFile) -> impl Iterator<Item = &str> {
    let filled = ["[", "Verdict", ":", ":", "Drop", "("];
    let at = |token: usize, texts: &[&str]| {
        let there = file.tokens[token..].iter().map(|token| token.text.as_str());
        there.take(texts.len()).eq(texts.iter().copied())
    };
    let given = move |&token: &usize| {
        at(token, &["DropReason", ":", ":"])
            && !file.tokens[token].test
            && !token
                .checked_sub(filled.len())
                .is_some_and(|before| at(before, &filled))
    };
    (0..file.tokens.len().saturating_sub(3))
        .filter(given)
        .map(|token| file.tokens[token + 3].text.as_str())
}

#[test]
fn a_drop_reason_is_not_used_by_an_array_that_waits_for_verdicts() {
    let text = "fn pass() -> Result<(), DropReason> {\n\
                let mut verdicts = [Verdict::Drop(DropReason::NotIp); BURST];\n\
                verdicts[0] = Verdict::Drop(DropReason::NoVip);\n\
                Err(DropReason::TxFull)\n}\n\
                #[cfg(test)]\nmod tests { const R: DropReason = DropReason::TooBig; }\n";
    let file = SourceFile::parse("engine/src/example.rs", text);
    assert_eq!(reasons(&file).collect::<Vec<_>>(), ["NoVip", "TxFull"]);
}

#[test]
fn every_drop_reason_is_used() {
    let files = sources();
    let used: BTreeSet<&str> = files
        .iter()
        .filter(|file| !DROPS_NOTHING.contains(&file.path.as_str()))
        .flat_map(reasons)
        .collect();
    let unused = DropReason::ALL
        .iter()
        .map(|reason| format!("{reason:?}"))
        .filter(|name| !used.contains(name.as_str()))
        .map(|name| format!("engine/plan/src/drop.rs: DropReason::{name}"));
    assert_none(
        "Nothing drops a packet for these reasons (written `DropReason::X`):",
        unused.collect(),
    );
}

/// The page is written from the reasons themselves: `UPDATE=1 cargo test -p lockstep-tests --test
/// conventions`.
#[test]
fn every_drop_reason_is_documented() {
    let path = root().join("docs/src/operations/drops.md");
    let mut page = String::from(
        "# Drop reasons\n\n\
         Every packet that the engine takes and does not forward is counted under one of these names: in `lockstep status`,\n\
         in the metrics, and in the answers of `lockstep explain`.\n\n\
         Counted for the virtual IP: `denied`, `rate_limited`, `source_rate_limited`, `no_backend`, `no_route`, `no_neighbour`,\n\
         `too_big`, `no_room`, what rewriting has no place for (`nat_clash`, `ports_full`, `flows_full`, `splices_full`, `paths_full`), `no_port`\n\
         where the route leaves by an interface that is not in topology.toml, and `icmp_tunnel` where the error shows whose packet\n\
         was in the tunnel. All others have no VIP (`-` in `lockstep status`,\n\
         empty labels in the metrics): what cannot be parsed is dropped before its VIP is looked up, `no_vip` and `no_session` have\n\
         none, and on the way out, `tx_full` and `no_port` for want of a socket of this worker, it is not looked at any more.\n\n\
         Packets that are dropped as `no_backend` are answered where the service says [`all_down = \"reset\"`](services.md#keys): TCP by a\n\
         RST, at most 10,000 a second and worker, UDP by ICMP's or ICMPv6's \"port unreachable\", at most 1,000. Segments with a wrong\n\
         checksum, RSTs and fragments of segments are not answered.\n\n\
         What the kernel drops before a worker has it is not here: see [Drops at the sockets](metrics.md#drops-at-the-sockets).\n\n\
         This page is written from the source: `UPDATE=1 cargo test -p lockstep-tests --test conventions`.\n\n\
         | reason | what it means, and what to do |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        page.push_str(&format!("| `{reason}` | {} |\n", reason.help()));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is not what the reasons say; write it again with UPDATE=1",
        path.display()
    );
}
