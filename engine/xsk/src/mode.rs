//! How packets get between the driver and the UMEM.

use std::fmt;

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BindMode {
    /// The best there is: zero-copy, then copy, as the XDP program's attachment allows.
    #[default]
    Auto,
    /// Zero-copy or an error. Needs a natively attached program.
    ZeroCopy,
    /// Copy, with a natively attached program.
    Copy,
    /// Copy, with a program attached in generic (skb) mode.
    Generic,
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BindMode::Auto => "auto",
            BindMode::ZeroCopy => "zero-copy",
            BindMode::Copy => "copy",
            BindMode::Generic => "generic",
        })
    }
}

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The NIC reads and writes the UMEM.
    ZeroCopy,
    /// The driver runs the XDP program, the kernel copies between its buffers and the UMEM.
    NativeCopy,
    /// The kernel runs the XDP program on socket buffers and copies. Works everywhere, slowest.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::ZeroCopy => "zero-copy",
            Mode::NativeCopy => "native-copy",
            Mode::Generic => "generic",
        })
    }
}
