//! The screen on made-up statuses, in ratatui's terminal for tests.

#![allow(clippy::unwrap_used)]

use super::meter::Meter;
use super::screen::{Screen, Wish};
use super::view::View;
use lockstep_api as api;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

/// Two services on an engine that has run for `age` seconds and forwarded that many times what it
/// forwards in a second.
fn status(age: u64) -> api::EngineStatus {
    let vip =
        |address: &str, port, last_port, packets: u64, drops: Vec<api::DropCount>| api::VipStatus {
            vip: Some(api::Vip {
                address: address.to_owned(),
                port,
                last_port,
                protocol: api::Protocol::Tcp.into(),
            }),
            packets: packets * age,
            bytes: packets * 125 * age,
            flows_moved: 0,
            stateless: 0,
            drops,
        };
    let backend = |name: &str, address: &str, packets: u64, reachable| api::BackendStatus {
        name: name.to_owned(),
        address: address.to_owned(),
        state: api::BackendState::Active.into(),
        ring_share: 0.5,
        packets: packets * age,
        bytes: packets * 125 * age,
        new_flows: 10 * age,
        flows: packets,
        next_hop: if reachable {
            "52:54:00:12:34:56 dev eth0"
        } else {
            "no route"
        }
        .to_owned(),
        reachable,
        ..api::BackendStatus::default()
    };
    let drop = |reason: &str, packets: u64| api::DropCount {
        reason: reason.to_owned(),
        packets: packets * age,
        help: format!("What {reason} needs."),
    };
    let worker = |index, state: &str| api::WorkerStatus {
        index,
        core: index + 1,
        queues: vec![format!("eth0:{index}")],
        state: state.to_owned(),
        rx_packets: 1_000 * age,
        processed_packets: 900 * age,
        tx_packets: 990 * age,
        dropped: 10 * age,
        flows: 500,
        flows_capacity: 1_000,
        ..api::WorkerStatus::default()
    };
    api::EngineStatus {
        version: "0.1.0".to_owned(),
        pid: 42,
        uptime_seconds: age as f64,
        epoch: 7,
        workers: vec![worker(0, "running"), worker(1, "hung")],
        services: vec![
            api::ServiceStatus {
                name: "web".to_owned(),
                mode: "tunnel".to_owned(),
                vips: vec![vip(
                    "203.0.113.10",
                    80,
                    0,
                    1_000,
                    vec![drop("no_neighbour", 3)],
                )],
                backends: vec![
                    backend("s1", "10.0.1.11", 600, true),
                    backend("s2", "10.0.1.12", 400, false),
                ],
                sessions: 0,
            },
            api::ServiceStatus {
                name: "voice".to_owned(),
                mode: "nat".to_owned(),
                vips: vec![vip("2001:db8::10", 5_060, 5_080, 4_000, Vec::new())],
                backends: vec![backend("s3", "2001:db8:1::11", 4_000, true)],
                sessions: 0,
            },
        ],
        interfaces: Vec::new(),
        drops: vec![drop("no_vip", 20), drop("fragment", 0)],
        ..api::EngineStatus::default()
    }
}

fn view() -> View {
    let mut meter = Meter::default();
    View::new(&status(100), &mut meter);
    View::new(&status(102), &mut meter)
}

/// The screen's lines, and whether a line has red in it.
fn drawn(screen: &mut Screen, width: u16, height: u16) -> Vec<(String, bool)> {
    let mut terminal = ratatui::Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| {
        let cells = (0..width).map(|x| &buffer[(x, y)]);
        let text: String = cells.clone().map(|cell| cell.symbol()).collect();
        let red = cells.clone().any(|cell| cell.fg == Color::Red);
        (text.trim_end().to_owned(), red)
    };
    (0..height).map(line).collect()
}

fn text(lines: &[(String, bool)]) -> String {
    lines.iter().map(|(line, _)| format!("{line}\n")).collect()
}

fn key(screen: &mut Screen, code: KeyCode) -> Wish {
    screen.react(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn showing(view: View) -> Screen {
    let mut screen = Screen::default();
    screen.show(view);
    screen
}

#[test]
fn a_large_terminal_has_every_pane() {
    let mut screen = showing(view());
    let lines = drawn(&mut screen, 110, 30);
    let expected = "\
lockstep-engine 0.1.0, up 1m 42s, epoch 7, pid 42
5,000 packets/s, 5.0 Mbit/s, 30 new flows/s, 23 drops/s, 1,000 flows

1 VIPs 2
SERVICE  VIP                            PACKETS/S▾      BITS/S  DROPS/S  MODE    PACKETS  DROPPED
voice    [2001:db8::10]:5060-5080/tcp        4,000  4.0 Mbit/s        0  nat     408,000        0
web      203.0.113.10:80/tcp                 1,000  1.0 Mbit/s      3.0  tunnel  102,000      306

2 Backends 3
SERVICE  BACKEND  PACKETS/S▾       BITS/S  NEW FLOWS/S  FLOWS  STATE    SHARE  ADDRESS         NEXT HOP
";
    let squeezed = |text: &str| -> Vec<Vec<String>> {
        let words = |l: &str| l.split_whitespace().map(str::to_owned).collect();
        text.lines().map(words).collect()
    };
    let shown = squeezed(&text(&lines));
    assert_eq!(shown[..10], squeezed(expected)[..], "{}", text(&lines));
    let all = text(&lines);
    for part in [
        "3 Workers 2",
        "4 Drops 2",
        "no_vip",
        "What no_neighbour needs.",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert!(!all.contains("fragment"), "{all}");
    assert!(lines[29].0.starts_with("q quit"), "{all}");
    // What needs attention is red: drops that go on, no way to a backend, a hung worker.
    for (line, red) in &lines[5..29] {
        let alarming = [
            "web       203",
            "10.0.1.12",
            "hung",
            "no_vip",
            "no_neighbour",
        ];
        assert_eq!(
            *red,
            alarming.iter().any(|a| line.contains(a)),
            "{line}: {all}"
        );
    }
}

#[test]
fn a_small_terminal_has_the_chosen_pane_and_the_columns_that_fit() {
    let mut screen = showing(view());
    let all = text(&drawn(&mut screen, 40, 10));
    assert!(
        all.contains("1 VIPs 2") && !all.contains("Backends"),
        "{all}"
    );
    assert!(all.contains("voice") && !all.contains("DROPPED"), "{all}");
    key(&mut screen, KeyCode::Char('3'));
    let all = text(&drawn(&mut screen, 40, 10));
    assert!(all.contains("3 Workers 2") && all.contains("hung"), "{all}");
    // No size is too small to draw on.
    for (width, height) in [(1, 1), (3, 2), (7, 3), (200, 4), (5, 40)] {
        drawn(&mut screen, width, height);
    }
}

#[test]
fn rows_are_sorted_by_the_chosen_column() {
    let mut screen = showing(view());
    let first = |screen: &mut Screen| drawn(screen, 110, 30)[5].0.clone();
    assert!(first(&mut screen).starts_with("voice"));
    key(&mut screen, KeyCode::Char('r'));
    assert!(first(&mut screen).starts_with("web"));
    key(&mut screen, KeyCode::Char('r'));
    // To the drops: the largest first.
    key(&mut screen, KeyCode::Right);
    key(&mut screen, KeyCode::Right);
    assert!(first(&mut screen).starts_with("web"));
    // And round to the service's name.
    for _ in 0..4 {
        key(&mut screen, KeyCode::Left);
    }
    assert!(first(&mut screen).starts_with("voice"));
    key(&mut screen, KeyCode::Left);
    assert!(text(&drawn(&mut screen, 110, 30)).contains("DROPPED▾"));
}

#[test]
fn keys_choose_panes_scroll_pause_and_end() {
    let mut screen = showing(view());
    let all = text(&drawn(&mut screen, 60, 7));
    assert!(all.contains("1 VIPs") && !all.contains("web "), "{all}");
    assert!(all.contains("1-1 of 2"), "{all}");
    for _ in 0..5 {
        key(&mut screen, KeyCode::Down);
    }
    let all = text(&drawn(&mut screen, 60, 7));
    assert!(all.contains("web ") && all.contains("2-2 of 2"), "{all}");
    key(&mut screen, KeyCode::Tab);
    assert!(text(&drawn(&mut screen, 60, 8)).contains("2 Backends"));
    key(&mut screen, KeyCode::BackTab);
    key(&mut screen, KeyCode::BackTab);
    assert!(text(&drawn(&mut screen, 60, 8)).contains("4 Drops"));
    key(&mut screen, KeyCode::Char('p'));
    screen.show(View::new(&status(900), &mut Meter::default()));
    let all = text(&drawn(&mut screen, 90, 8));
    assert!(all.contains("up 1m 42s") && all.contains("paused"), "{all}");
    key(&mut screen, KeyCode::Char('p'));
    screen.show(View::new(&status(900), &mut Meter::default()));
    let all = text(&drawn(&mut screen, 90, 8));
    assert!(
        all.contains("up 15m 0s") && all.contains("- packets/s"),
        "{all}"
    );
    assert_eq!(key(&mut screen, KeyCode::Char('x')), Wish::GoOn);
    assert_eq!(key(&mut screen, KeyCode::Char('q')), Wish::End);
    assert_eq!(key(&mut screen, KeyCode::Esc), Wish::End);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.react(&Event::Key(interrupt)), Wish::End);
    assert_eq!(screen.react(&Event::Resize(1, 1)), Wish::GoOn);
}

#[test]
fn an_engine_that_does_not_answer_leaves_its_last_view() {
    let mut screen = Screen::default();
    assert!(text(&drawn(&mut screen, 60, 8)).contains("has not answered yet"));
    screen.show(view());
    screen.fail("lockstep-engine is not running".to_owned());
    let lines = drawn(&mut screen, 110, 30);
    assert_eq!(
        lines[1],
        ("lockstep-engine is not running".to_owned(), true)
    );
    assert!(lines[5].0.starts_with("voice"), "{}", text(&lines));
    screen.show(view());
    assert!(!text(&drawn(&mut screen, 110, 30)).contains("is not running"));
}

#[test]
fn the_plain_tables_are_the_same_view() {
    let text = view().text();
    for part in [
        "5,000 packets/s, 5.0 Mbit/s, 30 new flows/s, 23 drops/s, 1,000 flows\n\nSERVICE",
        "\nno_vip        -                         20    2,040  What no_vip needs.\n",
        "\n     1  hung     1,000          900   990       10         0    500  50.0 %     2  eth0:1\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = serde_json::to_value(view()).unwrap();
    assert_eq!(json["total"]["bits_per_second"], 5e6);
    assert_eq!(json["backends"][1]["reachable"], false);
    assert_eq!(json["drops"][0]["vip"], serde_json::Value::Null);
}
