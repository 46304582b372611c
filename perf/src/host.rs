//! What a host takes of a virtual machine's CPUs (steal): pauses of milliseconds, in which nothing here runs
//! and for which no case of a measurement is to blame.

use crate::cpu;
use anyhow::Result;

/// What is measured, and the milliseconds for which a host had one of these CPUs meanwhile, of all of them
/// together. The kernel tells them in steps of ten: of a short pause there may be nothing to see.
pub fn beside<T>(cpus: &[usize], measure: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = stolen(cpus)?;
    let measured = measure()?;
    Ok((measured, (stolen(cpus)? - before) * 1e3))
}

/// Seconds that a host had these CPUs since they were started, all of them together.
pub fn stolen(cpus: &[usize]) -> Result<f64> {
    cpus.iter().map(|&cpu| cpu::stolen(cpu)).sum()
}

/// A host may have so much of the CPUs' time, in milliseconds a second of all together, before something is
/// measured again.
const MOST: f64 = 10.0;
/// How often something is measured at most for that.
const TIMES: usize = 3;

/// What is measured for so many seconds while a host has no more than a little of the CPUs' time; where it had
/// more each time, that of the time in which it had least. What came of it has no say in the choice.
pub fn calmest<T>(
    cpus: &[usize],
    seconds: u64,
    mut measure: impl FnMut() -> Result<T>,
) -> Result<T> {
    calmest_of(MOST * seconds as f64, || beside(cpus, &mut measure))
}

fn calmest_of<T>(most: f64, mut measure: impl FnMut() -> Result<(T, f64)>) -> Result<T> {
    let mut calmest = measure()?;
    for _ in 1..TIMES {
        if calmest.1 <= most {
            break;
        }
        let another = measure()?;
        if another.1 < calmest.1 {
            calmest = another;
        }
    }
    Ok(calmest.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    /// Which one is chosen, of measurements with so much stolen.
    fn of(stolen: &[f64]) -> (usize, usize) {
        let mut made = 0;
        let chosen = calmest_of(10.0, || {
            made += 1;
            Ok((made, stolen[made - 1]))
        });
        (chosen.expect("it goes well"), made)
    }

    #[test]
    fn a_measurement_is_made_again_while_the_host_takes_more_and_the_calmest_is_chosen() {
        assert_eq!(of(&[0.0]), (1, 1));
        assert_eq!(of(&[10.0]), (1, 1));
        assert_eq!(of(&[20.0, 10.0]), (2, 2));
        assert_eq!(of(&[40.0, 50.0, 20.0]), (3, 3));
        assert_eq!(of(&[30.0, 40.0, 50.0]), (1, 3));
        assert!(calmest_of(10.0, || -> Result<((), f64)> { bail!("no") }).is_err());
    }

    #[test]
    fn what_is_stolen_is_of_all_the_cpus() {
        let (measured, stolen) = beside(&[0], || Ok(7)).expect("there is a CPU 0");
        assert_eq!(measured, 7);
        assert!(stolen >= 0.0);
        assert!(beside(&[0, 1_000_000], || Ok(())).is_err());
    }
}
