//! libbpf's messages: into our errors instead of onto standard error.

use libbpf_rs::{PrintLevel, set_print};
use std::cell::RefCell;
use std::sync::Once;

/// The most of libbpf's messages that is kept: a verifier log can have megabytes, and its end is
/// what tells.
const KEPT: usize = 64 * 1024;

thread_local! {
    static CAPTURED: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `call` and returns beside its result what libbpf had to say, on this thread, meanwhile.
pub(crate) fn captured<T>(call: impl FnOnce() -> T) -> (T, String) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        set_print(Some((PrintLevel::Info, keep)));
    });
    CAPTURED.with_borrow_mut(|captured| *captured = Some(String::new()));
    let result = call();
    let said = CAPTURED.with_borrow_mut(Option::take).unwrap_or_default();
    (result, said)
}

fn keep(_level: PrintLevel, message: String) {
    CAPTURED.with_borrow_mut(|captured| {
        if let Some(captured) = captured {
            captured.push_str(&message);
            if captured.len() > KEPT {
                let cut = captured.ceil_char_boundary(captured.len() - KEPT);
                captured.drain(..cut);
            }
        }
    });
}

/// The last `lines` lines of a log.
pub(crate) fn tail(log: &str, lines: usize) -> String {
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// What the kernel said in the extended acknowledgement of a netlink request, by way of libbpf.
pub(crate) fn kernel_message(log: &str) -> Option<&str> {
    log.lines()
        .find_map(|line| line.split_once("Kernel error message: "))
        .map(|(_, message)| message.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_kept() {
        let ((), said) = captured(|| {
            for line in 0..20_000 {
                keep(PrintLevel::Warn, format!("line {line} ä\n"));
            }
        });
        assert!(said.len() <= KEPT);
        assert_eq!(tail(&said, 2), "line 19998 ä\nline 19999 ä");
        keep(PrintLevel::Warn, "nobody listens".into());
        assert_eq!(captured(|| ()).1, "");
    }

    #[test]
    fn the_kernel_s_own_words_are_found() {
        let log = "libbpf: a\nlibbpf: Kernel error message: veth: MTU too large\n";
        assert_eq!(kernel_message(log), Some("veth: MTU too large"));
        assert_eq!(kernel_message("libbpf: a\n"), None);
    }
}
