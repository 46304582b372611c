//! Which interrupts a queue has.

use super::Machine;

/// What the interrupts of a device are called that are no queue's.
const OTHERS: [&str; 6] = ["async", "config", "control", "ctrl", "misc", "mbx"];

/// The interrupts of a queue, or why none are known.
pub(super) fn of_queue(
    machine: &mut impl Machine,
    interface: &str,
    queue: u32,
) -> Result<Vec<u32>, String> {
    let device = format!("/sys/class/net/{interface}/device");
    // Those of a virtio interface are its PCI device's, one up.
    let mut numbers = machine.names_in(&format!("{device}/msi_irqs"));
    if numbers.is_empty() {
        numbers = machine.names_in(&format!("{device}/../msi_irqs"));
    }
    if numbers.is_empty() {
        return Err("the device has no interrupts of its own".to_owned());
    }
    let table = machine.read("/proc/interrupts")?;
    let found: Vec<u32> = table
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(number, _)| numbers.iter().any(|n| n == number.trim()))
        .filter(|(_, rest)| queue_of(rest) == Some(queue))
        .filter_map(|(number, _)| number.trim().parse().ok())
        .collect();
    if found.is_empty() {
        return Err(format!(
            "no interrupt of the device is named after queue {queue} in /proc/interrupts"
        ));
    }
    Ok(found)
}

/// The queue that a line's last word is named after: `ice-eth0-TxRx-3`, `virtio1-input.0`,
/// `mlx5_comp2@pci:0000:01:00.0`.
fn queue_of(line: &str) -> Option<u32> {
    let name = line.split_whitespace().last()?;
    let name = name.split('@').next()?;
    if OTHERS.iter().any(|other| name.contains(other)) {
        return None;
    }
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}
