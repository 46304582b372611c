//! The page of the API is what the comments of its `.proto` file say:
//! `UPDATE=1 cargo test -p lockstep-api`.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, ServiceDescriptorProto,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Places of comments: the numbers that `SourceCodeInfo` has for them, in descriptor.proto's words.
const MESSAGE: i32 = 4;
const ENUM: i32 = 5;
const SERVICE: i32 = 6;
const PART: i32 = 2;

const HEAD: &str = "\
# gRPC API

What `lockstep` and other programs of this host can ask: `lockstep.v1.Engine` at `/run/lockstep/engine.sock`, `lockstep.v1.Control` at
`/run/lockstep/lockstepd.sock`, both of them Unix sockets that only root may open. Nothing of it is on the network. The file is
`ctl/api/proto/lockstep.proto`; fields are added, and the numbers of those that are there stay.

This page is written from it: `UPDATE=1 cargo test -p lockstep-api`.
";

/// The comments of a file, by their places.
struct Comments {
    of: BTreeMap<Vec<i32>, String>,
    missing: Vec<String>,
}

impl Comments {
    /// What stands before the thing at this place.
    fn at(&mut self, place: &[i32], name: &str) -> String {
        let text = self.of.get(place).cloned().unwrap_or_default();
        if text.is_empty() {
            self.missing.push(name.to_owned());
        }
        text
    }
}

fn index(at: usize) -> i32 {
    i32::try_from(at).unwrap()
}

/// `.lockstep.v1.Vip` is `Vip`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A type that has a section is a link to it.
fn linked(name: &str) -> String {
    let name = short(name);
    format!("[`{name}`](#{})", name.to_lowercase())
}

/// A table's cell has no `|`.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn page() -> (String, Vec<String>) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile(["lockstep.proto"], [proto]).unwrap().file;
    let file = files
        .into_iter()
        .find(|f| f.name() == "lockstep.proto")
        .unwrap();
    let locations = &file.source_code_info.as_ref().unwrap().location;
    let of = locations.iter().map(|location| {
        let words: Vec<&str> = location.leading_comments().split_whitespace().collect();
        (location.path.clone(), words.join(" "))
    });
    let mut comments = Comments {
        of: of.collect(),
        missing: Vec::new(),
    };
    let mut page = HEAD.to_owned();
    for (at, service) in file.service.iter().enumerate() {
        calls(&mut page, &mut comments, index(at), service);
    }
    page.push_str("\n## Messages\n");
    for (at, message) in file.message_type.iter().enumerate() {
        fields(&mut page, &mut comments, index(at), message);
    }
    page.push_str("\n## Enums\n");
    for (at, of) in file.enum_type.iter().enumerate() {
        values(&mut page, &mut comments, index(at), of);
    }
    (page, comments.missing)
}

fn calls(page: &mut String, comments: &mut Comments, at: i32, service: &ServiceDescriptorProto) {
    let _ = write!(page, "\n## Service `{}`\n\n", service.name());
    page.push_str("| call | request | answer | what |\n|---|---|---|---|\n");
    for (call_at, call) in service.method.iter().enumerate() {
        let place = [SERVICE, at, PART, index(call_at)];
        let what = comments.at(&place, &format!("{}.{}", service.name(), call.name()));
        let stream = |is: bool| if is { "stream of " } else { "" };
        let _ = writeln!(
            page,
            "| `{}` | {}{} | {}{} | {} |",
            call.name(),
            stream(call.client_streaming()),
            linked(call.input_type()),
            stream(call.server_streaming()),
            linked(call.output_type()),
            cell(&what)
        );
    }
}

fn fields(page: &mut String, comments: &mut Comments, at: i32, message: &DescriptorProto) {
    let what = comments.at(&[MESSAGE, at], message.name());
    let _ = write!(page, "\n### `{}`\n\n{what}\n", message.name());
    if message.field.is_empty() {
        return;
    }
    page.push_str("\n| field | type | what |\n|---|---|---|\n");
    for (field_at, field) in message.field.iter().enumerate() {
        let place = [MESSAGE, at, PART, index(field_at)];
        let what = comments.at(&place, &format!("{}.{}", message.name(), field.name()));
        let kind = if field.type_name().is_empty() {
            let kind = format!("{:?}", field.r#type()).to_lowercase();
            format!("`{kind}`")
        } else {
            linked(field.type_name())
        };
        let label = match (
            format!("{:?}", field.label()).as_str(),
            field.proto3_optional(),
        ) {
            ("Repeated", _) => "repeated ",
            (_, true) => "optional ",
            _ if field.oneof_index.is_some() => "one of them: ",
            _ => "",
        };
        let _ = writeln!(
            page,
            "| `{}` | {label}{kind} | {} |",
            field.name(),
            cell(&what)
        );
    }
}

fn values(page: &mut String, comments: &mut Comments, at: i32, of: &EnumDescriptorProto) {
    let what = comments.at(&[ENUM, at], of.name());
    let _ = write!(page, "\n### `{}`\n\n{what}\n\n", of.name());
    page.push_str("| value | what |\n|---|---|\n");
    for (value_at, value) in of.value.iter().enumerate() {
        let place = [ENUM, at, PART, index(value_at)];
        let what = comments.at(&place, &format!("{}.{}", of.name(), value.name()));
        let _ = writeln!(page, "| `{}` | {} |", value.name(), cell(&what));
    }
}

#[test]
fn everything_of_the_api_has_a_comment() {
    let (_, missing) = page();
    assert!(
        missing.is_empty(),
        "proto/lockstep.proto says nothing before {missing:#?}"
    );
}

#[test]
fn the_page_of_the_api_is_what_its_comments_say() {
    let (page, _) = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/operations/api.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is not what the comments say; write it again with UPDATE=1",
        path.display()
    );
}
