//! This host.

/// Its name: what a balancer is called where lockstepd.toml has no name for it.
///
/// # Errors
/// When the kernel does not tell.
pub fn name() -> Result<String, String> {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = read.map_err(|error| format!("cannot read this host's name: {error}"))?;
    Ok(name.trim().to_owned())
}
