use super::*;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[expect(dead_code, reason = "its shape is what is tested")]
    main: Main,
    #[serde(default)]
    worker: Vec<Worker>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "its shape is what is tested")]
struct Main {
    size: u16,
    mode: Option<Mode>,
    label: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    ZeroCopy,
    Copy,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "its shape is what is tested")]
struct Worker {
    core: u32,
    queues: Vec<String>,
}

fn said(text: &str) -> String {
    match from_toml::<File>("t.toml", text) {
        Ok(file) => panic!("accepted: {file:?}"),
        Err(found) => found.to_string(),
    }
}

/// Text in, exactly the report out.
#[test]
fn errors_of_shape_name_place_and_remedy() {
    let rows: &[(&str, &[&str])] = &[
        (
            "[main]\nsize = 1\n\n[[worker]]\ncore = 1\nquues = []\n",
            &[
                "t.toml:4:1: `queues` is missing in `worker`",
                "t.toml:6:1: unknown key `quues`; did you mean `queues`? (allowed: core, queues)",
            ],
        ),
        (
            "colour = 1\n[main]\nsize = 1\n",
            &["t.toml:1:1: unknown key `colour`; allowed: main, worker"],
        ),
        (
            "[main]\nsize = 1\nmode = \"zerocopy\"\n",
            &[
                "t.toml:3:8: `mode` cannot be `zerocopy`; did you mean `zero-copy`? (allowed: zero-copy, copy)",
            ],
        ),
        (
            "[main]\nsize = \"big\"\n",
            &["t.toml:2:8: `size` cannot be \"big\"; it takes a whole number from 0 to 65535"],
        ),
        (
            "[main]\nsize = 65536\n",
            &["t.toml:2:8: `size` cannot be `65536`; it takes a whole number from 0 to 65535"],
        ),
        (
            "[main]\nsize = 1.5\nlabel = true\n",
            &[
                "t.toml:2:8: `size` cannot be `1.5`; it takes a whole number from 0 to 65535",
                "t.toml:3:9: `label` cannot be `true`; it takes a string",
            ],
        ),
        ("", &["t.toml: `main` is missing"]),
        (
            "main = []\n",
            &["t.toml:1:8: `main` cannot be a list; it takes a table"],
        ),
        (
            "worker = [{ core = 1, queues = \"eth0:0\" }, { core = 2, queues = [1] }, { queues = [] }]\nmain = { size = 1 }\n",
            &[
                "t.toml:1:32: `queues` cannot be \"eth0:0\"; it takes a list",
                "t.toml:1:66: `queues` cannot be `1`; it takes a string",
                "t.toml:1:72: `core` is missing in `worker`",
            ],
        ),
    ];
    for (text, report) in rows {
        assert_eq!(said(text), report.join("\n"), "for:\n{text}");
    }
}

#[test]
fn syntax_errors_of_several_lines_are_listed_together() {
    let report = said("[main]\nsize = \nlabel = \"x\n[[worker]\ncore = 1\n");
    assert_eq!(
        report,
        [
            "t.toml:2:8: string values must be quoted, expected literal string",
            "t.toml:3:11: invalid basic string, expected `\"`",
            "t.toml:4:10: unclosed array table, expected `]`",
        ]
        .join("\n")
    );
}

#[test]
fn a_file_of_another_format_does_not_fill_the_terminal() {
    let text: String = (0..500).map(|n| format!("key{n} = {n}\n")).collect();
    let report = said(&text);
    assert_eq!(report.lines().count(), 50, "{report}");
}

#[test]
fn a_file_in_order_is_read() {
    let file: File = from_toml(
        "t.toml",
        "[main]\nsize = 1\nmode = \"copy\"\n[[worker]]\ncore = 0\nqueues = [\"eth0:0\"]\n",
    )
    .unwrap();
    assert_eq!(file.worker.len(), 1);
}

#[test]
fn columns_count_characters_and_lines_end_with_either_newline() {
    let text = "a = \"\u{e9}\u{4e2d}\" # x\r\nb = 1\r\n";
    let source = Source::new("t.toml", text);
    let at = |needle: &str| {
        let start = text.find(needle).unwrap();
        let Position { line, column } = source.at(start..start + needle.len());
        (line, column)
    };
    assert_eq!(at("a = "), (1, 1));
    assert_eq!(at("# x"), (1, 10));
    assert_eq!(at("b = "), (2, 1));
    assert_eq!(at("1"), (2, 5));
}

#[test]
fn diagnostics_stand_in_the_order_of_the_file_whatever_the_order_they_are_found_in() {
    let source = Source::new("t.toml", "one\ntwo\nthree\n");
    let found: Diagnostics = [
        source.error(8..9, "third"),
        source.warning(4..5, "second").help("do"),
        source.whole("all of it"),
        source.error(0..1, "first"),
    ]
    .into_iter()
    .collect();
    assert_eq!(
        found.to_string(),
        "t.toml: all of it\nt.toml:1:1: first\nt.toml:2:1: warning: second; do\nt.toml:3:1: third"
    );
}

#[test]
fn warnings_alone_do_not_refuse_a_value() {
    let source = Source::new("t.toml", "x");
    let mut found = Diagnostics::from(source.warning(0..1, "odd"));
    assert_eq!(found.clone().into_result(7), Ok(7));
    found.push(source.error(0..1, "wrong"));
    assert_eq!(found.clone().into_result(7), Err(found));
}

#[test]
fn only_a_near_word_is_proposed() {
    let words = ["core", "queues", "mode"];
    assert_eq!(nearest("quues", words), Some("queues"));
    assert_eq!(nearest("croe", words), Some("core"));
    assert_eq!(nearest("Queues", words), Some("queues"));
    assert_eq!(nearest("interface", words), None);
    assert_eq!(nearest("", words), None);
}

#[test]
fn a_word_of_a_longer_name_is_proposed_where_none_is_near() {
    for (word, proposed) in [
        ("remote_as", "did you mean `as`?"),
        ("AS-number", "did you mean `as`?"),
        ("asn", "did you mean `as`?"),
        ("based", "allowed: as, port"),
        ("source_ports", "allowed: as, port"),
    ] {
        let help = suggest(word, ["as", "port"]);
        assert!(help.starts_with(proposed), "{help}");
    }
}

proptest! {
    /// Any text is answered by a value or by at least one diagnostic, and never a panic.
    #[test]
    fn any_text_is_answered(text in "(\\[{1,2}(main|worker|x)\\]{1,2}\n|(size|mode|label|core|queues|q) = (1|\"x\"|\\[1, \\[\\]\\]|\\{a=1\\}|\u{e9}|)\n|.){0,12}") {
        if let Err(found) = from_toml::<File>("t.toml", &text) {
            prop_assert!(found.has_errors());
            for diagnostic in &found {
                let line = diagnostic.position.map_or(1, |p| p.line);
                prop_assert!(line <= text.matches('\n').count() + 1);
            }
        }
    }

    /// A position is the one that counting characters gives.
    #[test]
    fn a_position_points_at_its_character(text in "[a\u{e9}\n]{0,40}", index in 0usize..41) {
        let Some((start, _)) = text.char_indices().nth(index) else { return Ok(()) };
        let at = Source::new("t.toml", &text).at(start..start);
        let line = text.split('\n').nth(at.line - 1).unwrap();
        let before: usize = text.split('\n').take(at.line - 1).map(|l| l.chars().count() + 1).sum();
        prop_assert!(at.column <= line.chars().count() + 1);
        prop_assert_eq!(before + at.column - 1, index);
        prop_assert_eq!(Source::new("t.toml", &text).offset(at), start);
    }
}
