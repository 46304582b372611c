//! What both programs share: loading with libbpf's words in the error, counters, test runs.

use crate::BpfError;
use crate::log::{captured, tail};
use libbpf_rs::{ErrorKind, MapCore, MapFlags, ProgramInput, ProgramMut};
use std::time::Duration;

/// Lines of libbpf's and the verifier's log that an error carries.
const LOG_LINES: usize = 25;
/// Bytes by which a test run's frame may grow: the head-room that the kernel gives it.
const GROWTH: usize = 256;

/// What a program decided about a frame (`enum xdp_action`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The program failed; the kernel drops the frame.
    Aborted,
    /// Dropped.
    Drop,
    /// On to the kernel.
    Pass,
    /// Back out of the same interface.
    Transmit,
    /// To a socket.
    Redirect,
}

/// What a program did with a frame in a test run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRun {
    /// What it decided.
    pub action: Action,
    /// The frame as it left it.
    pub frame: Vec<u8>,
    /// The mean time of one run, in whole nanoseconds as the kernel measured them.
    pub time: Duration,
}

/// Runs `load` and puts what libbpf said into its error.
pub(crate) fn load<T>(
    program: &'static str,
    load: impl FnOnce() -> libbpf_rs::Result<T>,
) -> Result<T, BpfError> {
    let (result, log) = captured(load);
    result.map_err(|source| {
        if log.contains("BEGIN PROG LOAD LOG") {
            BpfError::Rejected {
                program,
                log: tail(&log, LOG_LINES),
            }
        } else if source.kind() == ErrorKind::PermissionDenied {
            BpfError::NotPermitted {
                doing: format!("load the XDP program {program}"),
            }
        } else {
            BpfError::Load {
                program,
                log: tail(&log, LOG_LINES),
                source,
            }
        }
    })
}

/// Entry `index` of a per-CPU array of `u64`, summed over the CPUs.
pub(crate) fn sum_over_cpus(counters: &impl MapCore, index: u32) -> Result<u64, BpfError> {
    let failed = |source| BpfError::Map {
        map: "counters",
        doing: "read a counter",
        source,
    };
    let values = counters
        .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
        .map_err(failed)?
        .unwrap_or_default();
    Ok(values
        .iter()
        .filter_map(|value| value.first_chunk())
        .map(|value| u64::from_ne_bytes(*value))
        .fold(0, u64::wrapping_add))
}

/// Runs `program` on `frame`, `repeat` times over the same buffer, as if it had come in on `queue`
/// of the interface with index `interface`, or on the loopback interface.
///
/// An Ethernet frame shorter than its header (14 bytes) is refused by the kernel.
pub(crate) fn test_run(
    program: &ProgramMut<'_>,
    name: &'static str,
    frame: &[u8],
    repeat: u32,
    came_in_on: Option<(u32, u32)>,
) -> Result<TestRun, BpfError> {
    let failed = |source| BpfError::TestRun {
        program: name,
        length: frame.len(),
        source,
    };
    let mut context = came_in_on.map(|on| xdp_md(frame.len(), on));
    let mut out = vec![0; frame.len() + GROWTH];
    let input = ProgramInput {
        data_in: Some(frame),
        data_out: Some(&mut out),
        context_in: context.as_mut().map(|context| context.as_mut_slice()),
        repeat,
        ..ProgramInput::default()
    };
    let (result, _) = captured(|| program.test_run(input));
    let output = result.map_err(failed)?;
    let action = match output.return_value {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Transmit,
        4 => Action::Redirect,
        // 0, and what else a program might return: the kernel treats both the same.
        _ => Action::Aborted,
    };
    Ok(TestRun {
        action,
        frame: output.data.map(|data| data.to_vec()).unwrap_or_default(),
        time: output.duration,
    })
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn xdp_md(length: usize, (interface, queue): (u32, u32)) -> [u8; 24] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let mut context = [0; 24];
    for (field, value) in [(1, length), (3, interface), (4, queue)] {
        context[field * 4..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}
