//! XDP programs on an interface: finding, attaching, replacing, removing.

use crate::BpfError;
use crate::log::{captured, kernel_message};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Xdp, XdpFlags};
use nix::errno::Errno;
use nix::unistd::geteuid;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachMode {
    /// In the driver, before the kernel has made a socket buffer.
    Native,
    /// In the network stack, on any interface, at the price of a socket buffer for every packet.
    Generic,
}

impl AttachMode {
    /// The mode's name.
    pub const fn name(self) -> &'static str {
        match self {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        }
    }

    fn flag(self) -> XdpFlags {
        match self {
            AttachMode::Native => XdpFlags::DRV_MODE,
            AttachMode::Generic => XdpFlags::SKB_MODE,
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which modes may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ModeChoice {
    /// Native, and generic where the interface refuses that.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic or nothing.
    Generic,
}

impl ModeChoice {
    fn candidates(self) -> &'static [AttachMode] {
        match self {
            ModeChoice::Auto => &[AttachMode::Native, AttachMode::Generic],
            ModeChoice::Native => &[AttachMode::Native],
            ModeChoice::Generic => &[AttachMode::Generic],
        }
    }
}

/// How an attachment came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) mode: AttachMode,
    /// Why it is generic though native was tried.
    pub(crate) native_refused: Option<String>,
}

/// A program that is on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// `None`: in the card itself, where none of ours goes.
    pub(crate) mode: Option<AttachMode>,
}

/// An interface of the calling thread's network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    name: String,
    index: i32,
    /// A program whose name is known though the kernel may not tell it.
    known: Option<(u32, &'static str)>,
}

impl Interface {
    pub(crate) fn find(name: &str) -> Result<Self, BpfError> {
        let index = nix::net::if_::if_nametoindex(name)
            .ok()
            .and_then(|index| i32::try_from(index).ok());
        match index {
            Some(index) => Ok(Interface {
                name: name.to_owned(),
                index,
                known: None,
            }),
            None => Err(BpfError::NoInterface {
                interface: name.to_owned(),
            }),
        }
    }

    /// Programs have names for those with CAP_SYS_ADMIN only, which an engine needs for nothing
    /// else: this one is known by where it is pinned.
    #[must_use]
    pub(crate) fn knowing(self, id: Option<u32>, name: &'static str) -> Self {
        let known = id.map(|id| (id, name));
        Interface { known, ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn index(&self) -> u32 {
        self.index.unsigned_abs()
    }

    /// The program that is attached, if any.
    pub(crate) fn attached(&self) -> Result<Option<Attached>, BpfError> {
        // The query is about an interface; the file descriptor that libbpf-rs wants is not used.
        let unused = io::stderr();
        let (result, log) = captured(|| Xdp::new(unused.as_fd()).query(self.index, XdpFlags::NONE));
        let ids = result.map_err(|error| {
            self.failed("ask for the attached XDP program", error_text(&error, &log))
        })?;
        let found = [
            (ids.drv_prog_id, Some(AttachMode::Native)),
            (ids.skb_prog_id, Some(AttachMode::Generic)),
            (ids.hw_prog_id, None),
            (ids.prog_id, None),
        ];
        Ok(found
            .into_iter()
            .find(|&(id, _)| id != 0)
            .map(|(id, mode)| Attached {
                id,
                name: self.program_name(id),
                mode,
            }))
    }

    fn program_name(&self, id: u32) -> String {
        match self.known {
            Some((known, name)) if known == id => name.to_owned(),
            _ => program_name(id),
        }
    }

    /// The attached program if its name is `name`.
    pub(crate) fn attached_as(&self, name: &str) -> Result<Option<Attached>, BpfError> {
        let attached = self.attached()?;
        // Names are for the privileged. Without one nothing says whose program it is.
        if attached.as_ref().is_some_and(|a| a.name.is_empty()) && !geteuid().is_root() {
            return Err(BpfError::NotPermitted {
                doing: format!("see which XDP program is attached to {}", self.name),
            });
        }
        Ok(attached.filter(|attached| attached.name == name))
    }

    /// Attaches `program`, in place of an older one of the same name.
    ///
    /// The kernel swaps programs of one mode in one step. It does not let both modes be active, so
    /// a change of mode leaves a moment without a program; the sockets of an older one that may be
    /// replaced are gone anyway, so its packets went to the kernel already.
    pub(crate) fn attach(
        &self,
        program: BorrowedFd<'_>,
        name: &'static str,
        choice: ModeChoice,
    ) -> Result<Attachment, BpfError> {
        let mut older = self.attached()?;
        if let Some(other) = older.as_ref().filter(|attached| attached.name != name) {
            return Err(self.busy(other));
        }
        let mut native_refused = None;
        for &mode in choice.candidates() {
            if let Some(other_mode) = older.take_if(|attached| attached.mode != Some(mode)) {
                self.detach(&other_mode)?;
            }
            match self.try_attach(program, mode, older.is_some()) {
                Ok(()) => {
                    return Ok(Attachment {
                        mode,
                        native_refused,
                    });
                }
                Err((Errno::EPERM, _)) => {
                    return Err(BpfError::NotPermitted {
                        doing: format!("attach an XDP program to {}", self.name),
                    });
                }
                Err((errno @ (Errno::EBUSY | Errno::EEXIST), reason)) => {
                    return Err(match self.attached()? {
                        Some(other) => self.busy(&other),
                        None => self.no_xdp(mode, format!("{reason} ({errno})")),
                    });
                }
                Err((_, reason)) if choice == ModeChoice::Auto && mode == AttachMode::Native => {
                    native_refused = Some(reason);
                }
                Err((_, reason)) => return Err(self.no_xdp(mode, reason)),
            }
        }
        Err(self.no_xdp(AttachMode::Generic, "no mode was tried".to_owned()))
    }

    fn try_attach(
        &self,
        program: BorrowedFd<'_>,
        mode: AttachMode,
        replace: bool,
    ) -> Result<(), (Errno, String)> {
        let mut flags = mode.flag();
        if !replace {
            flags |= XdpFlags::UPDATE_IF_NOEXIST;
        }
        let ((result, errno), log) = captured(|| {
            let result = Xdp::new(program).attach(self.index, flags);
            // libbpf sets errno on every failure (since 1.0); libbpf-rs hides the number.
            (result, Errno::last())
        });
        result.map_err(|error| (errno, error_text(&error, &log)))
    }

    /// Takes `attached` off, if it is still what is there. An interface that went away is fine.
    pub(crate) fn detach(&self, attached: &Attached) -> Result<(), BpfError> {
        let Some(mode) = attached.mode else {
            return Err(self.busy(attached));
        };
        if !self.exists() || self.attached()?.is_none_or(|now| now.id != attached.id) {
            return Ok(());
        }
        let unused = io::stderr();
        let (result, log) = captured(|| Xdp::new(unused.as_fd()).detach(self.index, mode.flag()));
        result.map_err(|error| self.failed("detach the XDP program", error_text(&error, &log)))
    }

    /// By its number: an interface keeps that when it is renamed. nix 0.31 gives an empty name, not
    /// an error, for a number that is not there.
    fn exists(&self) -> bool {
        nix::net::if_::if_indextoname(self.index()).is_ok_and(|name| !name.is_empty())
    }

    pub(crate) fn failed(&self, doing: &'static str, reason: String) -> BpfError {
        BpfError::Interface {
            interface: self.name.clone(),
            doing,
            reason,
        }
    }

    fn no_xdp(&self, mode: AttachMode, reason: String) -> BpfError {
        BpfError::NoXdp {
            interface: self.name.clone(),
            mode,
            reason,
        }
    }

    fn busy(&self, other: &Attached) -> BpfError {
        BpfError::Busy {
            interface: self.name.clone(),
            id: other.id,
            program: other.name.clone(),
            keyword: match other.mode {
                Some(AttachMode::Native) => "xdpdrv",
                Some(AttachMode::Generic) => "xdpgeneric",
                None => "xdpoffload",
            },
        }
    }
}

/// The kernel's own words where it had any, else the error code's.
fn error_text(error: &libbpf_rs::Error, log: &str) -> String {
    kernel_message(log).map_or_else(|| error.to_string(), str::to_owned)
}

fn program_name(id: u32) -> String {
    ProgInfoIter::default()
        .find(|program| program.id == id)
        .map(|program| program.name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
