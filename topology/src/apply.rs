//! Setting the NICs up as a topology says: queues, how the NIC spreads packets over them, and which
//! core each queue's interrupts go to.
//!
//! Decisions are here; what touches the machine is behind [`Machine`]. Everything is looked at
//! before it is changed, and left alone when it is right already.

mod ethtool;
mod interrupts;

use crate::deferral::Deferral;
use crate::model::{Interface, Receive, Topology};
use ethtool::{Channels, Rss};
use std::fmt;

/// What can be asked of a machine.
pub trait Machine {
    /// Runs a program.
    ///
    /// # Errors
    /// What it said, or why it could not be run.
    fn run(&mut self, program: &str, arguments: &[&str]) -> Result<String, String>;

    /// The text of a file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&mut self, path: &str) -> Result<String, String>;

    /// The names in a directory; none where it is not there.
    fn names_in(&mut self, path: &str) -> Vec<String>;

    /// Writes a file that is there.
    ///
    /// # Errors
    /// Why it cannot be written.
    fn write(&mut self, path: &str, text: &str) -> Result<(), String>;
}

/// One thing, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The interface.
    pub interface: String,
    /// What is to be: `queues 4`, `equal shares of queues 0-3`, `interrupt 45 (queue 2) on core 3`, ...
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was so already.
    Already,
    /// It is so now, by this command.
    Done(String),
    /// This command would make it so.
    Would(String),
    /// It cannot be, and why.
    Cannot(String),
}

impl Outcome {
    /// In a word.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Already => "already",
            Outcome::Done(_) => "done",
            Outcome::Would(_) => "would",
            Outcome::Cannot(_) => "cannot",
        }
    }

    /// The command, or the reason.
    pub fn detail(&self) -> &str {
        match self {
            Outcome::Already => "",
            Outcome::Done(text) | Outcome::Would(text) | Outcome::Cannot(text) => text,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Step {
            interface, what, ..
        } = self;
        match &self.outcome {
            Outcome::Already => write!(f, "{interface}: {what}: already"),
            Outcome::Done(command) => write!(f, "{interface}: {what}: done (`{command}`)"),
            Outcome::Would(command) => write!(f, "{interface}: {what}: would run `{command}`"),
            Outcome::Cannot(why) => write!(f, "{interface}: {what}: cannot: {why}"),
        }
    }
}

/// Makes every interface of the topology as the topology needs it, as far as that can be; with
/// `dry_run`, only says what it would do.
pub fn apply(topology: &Topology, machine: &mut impl Machine, dry_run: bool) -> Vec<Step> {
    let mut applying = Applying {
        machine,
        dry_run,
        steps: Vec::new(),
    };
    for interface in topology.interfaces() {
        applying.interface(topology, interface);
    }
    applying.steps
}

struct Applying<'a, M> {
    machine: &'a mut M,
    dry_run: bool,
    steps: Vec<Step>,
}

impl<M: Machine> Applying<'_, M> {
    fn interface(&mut self, topology: &Topology, interface: &Interface) {
        let name = interface.name.as_str();
        let polled = topology.queues_of(&interface.name);
        let Some(last) = polled.last() else {
            return;
        };
        // They are numbered from 0, and what is not polled gets nothing by the table below.
        let outcome = self.queues(name, last + 1);
        self.note(name, format!("queues {}", last + 1), outcome);
        if polled.len() > 1 || *last > 0 {
            self.spread(name, &polled);
        }
        if topology.engine().receive == Receive::Worker {
            self.defer(name);
        }
        for (index, worker) in topology.workers().iter().enumerate() {
            let queues = worker.queues.iter();
            for queue in queues.filter(|queue| queue.interface == interface.name) {
                self.interrupts(name, queue.number, topology, index);
            }
        }
    }

    fn note(&mut self, interface: &str, what: String, outcome: Outcome) {
        self.steps.push(Step {
            interface: interface.to_owned(),
            what,
            outcome,
        });
    }

    /// How many queues it has.
    fn queues(&mut self, name: &str, wanted: u32) -> Outcome {
        let channels = match self.machine.run("ethtool", &["-l", name]) {
            Ok(text) => Channels::parse(&text),
            // One that cannot say how many queues it has has one.
            Err(_) if wanted == 1 => return Outcome::Already,
            Err(why) => return Outcome::Cannot(why),
        };
        let count = wanted.to_string();
        let arguments = match channels.plan(wanted) {
            ethtool::Plan::Already => return Outcome::Already,
            ethtool::Plan::TooMany(most) => {
                return Outcome::Cannot(format!("the device has {most} at most"));
            }
            ethtool::Plan::Combined => vec!["-L", name, "combined", &count],
            ethtool::Plan::Separate => vec!["-L", name, "rx", &count, "tx", &count],
        };
        self.ethtool(&arguments)
    }

    /// Equal shares for all queues that are polled, and both directions of a connection to the same
    /// queue.
    fn spread(&mut self, name: &str, polled: &[u32]) {
        let shares = format!("equal shares of the queues {}", ethtool::list(polled));
        let key = "the symmetric hash key".to_owned();
        let rss = match self.machine.run("ethtool", &["-x", name]) {
            Ok(text) => Rss::parse(&text),
            Err(why) => {
                self.note(name, shares, Outcome::Cannot(why.clone()));
                return self.note(name, key, Outcome::Cannot(why));
            }
        };
        let outcome = match &rss.table {
            Err(why) => Outcome::Cannot(why.clone()),
            Ok(table) if ethtool::is_equal(table, polled) => Outcome::Already,
            Ok(_) => {
                let weights = ethtool::shares(polled);
                let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
                self.ethtool(&[&["-X", name], weights.as_slice()].concat())
            }
        };
        self.note(name, shares, outcome);
        let outcome = match &rss.key {
            Err(why) => Outcome::Cannot(why.clone()),
            Ok(bytes) => {
                let wanted = ethtool::symmetric(bytes.len());
                match *bytes == wanted {
                    true => Outcome::Already,
                    false => self.ethtool(&["-X", name, "hkey", &ethtool::hexadecimal(&wanted)]),
                }
            }
        };
        self.note(name, key, outcome);
    }

    /// The interrupts of a queue go to the core of its worker.
    fn interrupts(&mut self, name: &str, queue: u32, topology: &Topology, worker: usize) {
        let core = topology.workers()[worker].core.to_string();
        let found = interrupts::of_queue(self.machine, name, queue);
        let numbers = match found {
            Ok(numbers) => numbers,
            Err(why) => {
                let what = format!("interrupts of queue {queue} on core {core}");
                return self.note(name, what, Outcome::Cannot(why));
            }
        };
        for number in numbers {
            let outcome = self.file(&format!("/proc/irq/{number}/smp_affinity_list"), &core);
            let what = format!("interrupt {number} (queue {queue}) on core {core}");
            self.note(name, what, outcome);
        }
    }

    /// Packets wait for the worker.
    fn defer(&mut self, name: &str) {
        let wanted = Deferral::FOR_WORKERS.values();
        for (file, value) in Deferral::FILES.into_iter().zip(wanted) {
            let path = format!("/sys/class/net/{name}/{file}");
            let outcome = self.file(&path, &value.to_string());
            self.note(name, format!("{file} {value}"), outcome);
        }
    }

    /// A file has this text.
    fn file(&mut self, path: &str, text: &str) -> Outcome {
        match self.machine.read(path) {
            Err(why) => Outcome::Cannot(why),
            Ok(is) if is.trim() == text => Outcome::Already,
            Ok(_) if self.dry_run => Outcome::Would(format!("echo {text} > {path}")),
            Ok(_) => match self.machine.write(path, text) {
                Ok(()) => Outcome::Done(format!("echo {text} > {path}")),
                Err(why) => Outcome::Cannot(why),
            },
        }
    }

    fn ethtool(&mut self, arguments: &[&str]) -> Outcome {
        let command = format!("ethtool {}", arguments.join(" "));
        if self.dry_run {
            return Outcome::Would(command);
        }
        match self.machine.run("ethtool", arguments) {
            Ok(_) => Outcome::Done(command),
            Err(why) => Outcome::Cannot(format!("`{command}`: {why}")),
        }
    }
}

#[cfg(test)]
mod tests;
