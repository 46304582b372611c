use super::files::Files;
use super::{Spill, SpillCounters, SpillEndpoint, SpillError, UNDER_WAY, Wake};
use lockstep_core::replicate::chunks::{CHUNK, ChunkPool};
use lockstep_core::replicate::event::SessionId;
use lockstep_core::replicate::log::{InputLog, Read};
use lockstep_core::replicate::spill::{SpillQueue, SpillReply, SpillRequest};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const MIB: u64 = 1 << 20;

fn session(number: u64) -> SessionId {
    SessionId { worker: 1, number }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Names in a directory, the lock apart.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "engine.lock")
        .collect();
    names.sort();
    names
}

/// Files alone, without the thread.
struct Disk {
    files: Files,
    pool: ChunkPool,
    counters: Arc<SpillCounters>,
}

impl Disk {
    fn new(directory: &Path, limit: u64) -> Self {
        let counters = Arc::new(SpillCounters::default());
        Disk {
            files: Files::open(directory, limit, Arc::clone(&counters)).unwrap(),
            pool: ChunkPool::new(4 * CHUNK),
            counters,
        }
    }

    /// Whether a chunk of this byte was written.
    fn append(&mut self, session: SessionId, offset: u64, byte: u8) -> bool {
        let mut chunk = self.pool.take().unwrap();
        chunk.bytes_mut().fill(byte);
        let request = SpillRequest::Append {
            session,
            offset,
            chunk,
        };
        let reply = self.files.carry_out(request).expect("appends have replies");
        assert_eq!(reply.session(), session);
        let written = matches!(reply, SpillReply::Appended { offset: at, .. } if at == offset);
        self.pool.put(reply.into_chunk());
        written
    }

    /// The byte that a chunk is full of, if it can be read.
    fn read(&mut self, session: SessionId, offset: u64) -> Option<u8> {
        let mut chunk = self.pool.take().unwrap();
        chunk.bytes_mut().fill(0xee);
        let request = SpillRequest::Read {
            session,
            offset,
            chunk,
        };
        let reply = self.files.carry_out(request).expect("reads have replies");
        let filled = matches!(reply, SpillReply::Filled { offset: at, .. } if at == offset);
        let chunk = reply.into_chunk();
        let byte = chunk.bytes()[0];
        assert!(chunk.bytes().iter().all(|&b| b == byte));
        self.pool.put(chunk);
        filled.then_some(byte)
    }

    fn remove(&mut self, session: SessionId) {
        let reply = self.files.carry_out(SpillRequest::Remove { session });
        assert!(reply.is_none());
    }
}

#[test]
fn what_is_written_is_read_back_until_it_is_removed() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("a/spill");
    let mut disk = Disk::new(&directory, MIB);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for index in 0..4 {
        assert!(disk.append(session(1), index * CHUNK as u64, index as u8));
    }
    assert!(disk.append(session(2), 0, 9));
    assert_eq!(
        names(&directory),
        ["session-1-1.spill", "session-1-2.spill"]
    );
    assert_eq!(mode(&directory.join("session-1-1.spill")), 0o600);
    assert_eq!(get(&disk.counters.files), 2);
    assert_eq!(get(&disk.counters.stored), 5 * CHUNK as u64);
    for index in [3, 0, 2, 1, 1] {
        assert_eq!(
            disk.read(session(1), index * CHUNK as u64),
            Some(index as u8)
        );
    }
    // Behind its end, in no file, and in one that was removed.
    assert_eq!(disk.read(session(1), 4 * CHUNK as u64), None);
    assert_eq!(disk.read(session(3), 0), None);
    disk.remove(session(1));
    assert_eq!(disk.read(session(1), 0), None);
    assert_eq!(disk.read(session(2), 0), Some(9));
    disk.remove(session(1));
    assert_eq!(names(&directory), ["session-1-2.spill"]);
    assert_eq!(get(&disk.counters.files), 1);
    assert_eq!(get(&disk.counters.stored), CHUNK as u64);
    assert_eq!(get(&disk.counters.failures), 3);
    assert_eq!(get(&disk.counters.written), 5 * CHUNK as u64);
    assert_eq!(get(&disk.counters.read), 6 * CHUNK as u64);
}

#[test]
fn what_an_earlier_run_left_is_removed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let others = [
        "notes.txt",
        "session-1.spill",
        "session-1-x.spill",
        "session-1-1.spill.bak",
    ];
    for name in others
        .iter()
        .chain(&["session-0-1.spill", "session-15-77.spill"])
    {
        fs::write(path.join(name), "x").unwrap();
    }
    // A link in the place of a file goes, what it leads to stays.
    std::os::unix::fs::symlink(path.join("notes.txt"), path.join("session-1-1.spill")).unwrap();
    let mut disk = Disk::new(path, MIB);
    let mut expected: Vec<_> = others.to_vec();
    expected.sort_unstable();
    assert_eq!(names(path), expected);
    assert!(disk.append(session(1), 0, 1));
    assert_eq!(fs::read(path.join("notes.txt")).unwrap(), b"x");
}

#[test]
fn two_engines_do_not_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let start = || Spill::start(directory.path(), MIB, Vec::new());
    let first = start().unwrap();
    let error = start().expect_err("it is in use");
    assert!(matches!(error, SpillError::InUse(_)), "{error}");
    assert!(
        error.to_string().contains("give each its own directory"),
        "{error}"
    );
    drop(first);
    start().unwrap();
}

#[test]
fn a_directory_that_cannot_be_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Spill::start(&file.join("spill"), MIB, Vec::new()).expect_err("a file is there");
    assert!(matches!(error, SpillError::Directory { .. }));
    assert!(
        error.to_string().contains("/file/spill cannot hold"),
        "{error}"
    );
}

#[test]
fn past_the_limit_a_log_loses_its_file_and_the_others_have_room() {
    let directory = tempfile::tempdir().unwrap();
    let chunk = CHUNK as u64;
    let mut disk = Disk::new(directory.path(), 4 * chunk);
    assert!(disk.append(session(1), 0, 1));
    assert!((0..3).all(|index| disk.append(session(2), index * chunk, 2)));
    assert!(!disk.append(session(1), chunk, 1));
    assert_eq!(names(directory.path()), ["session-1-2.spill"]);
    // What was under way behind it fails as well, whatever room there is now.
    assert!(!disk.append(session(1), 2 * chunk, 1));
    assert_eq!(disk.read(session(1), 0), None);
    assert!(disk.append(session(2), 3 * chunk, 2));
    assert!(!disk.append(session(3), 0, 3));
    disk.remove(session(1));
    disk.remove(session(2));
    assert!(disk.append(session(4), 0, 4));
    assert_eq!(get(&disk.counters.files), 1);
    assert_eq!(get(&disk.counters.failures), 4);
}

#[test]
fn more_sessions_than_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = Disk::new(directory.path(), 64 * MIB);
    for round in 0..3 {
        for number in 0..200 {
            assert!(disk.append(session(number), round * CHUNK as u64, number as u8));
        }
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = fs::read_link(entry.as_ref().unwrap().path()).unwrap_or_default();
        target.starts_with(directory.path())
    });
    assert!(open.count() <= 65);
    for number in 0..200 {
        assert_eq!(
            disk.read(session(number), 2 * CHUNK as u64),
            Some(number as u8)
        );
    }
    disk.files.remove_all();
    assert_eq!(names(directory.path()), [""; 0]);
}

/// A worker with one session, and what it waits with.
struct Worker {
    log: Option<InputLog>,
    pool: ChunkPool,
    queue: SpillQueue,
    endpoint: SpillEndpoint,
    awake: Receiver<()>,
}

fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

impl Worker {
    fn new(endpoint: SpillEndpoint, awake: Receiver<()>, number: u64) -> Self {
        Worker {
            log: Some(InputLog::new(1 << 17, 64 * MIB, session(number))),
            pool: ChunkPool::new(1 << 20),
            queue: SpillQueue::new(UNDER_WAY),
            endpoint,
            awake,
        }
    }

    fn log(&mut self) -> &mut InputLog {
        self.log.as_mut().unwrap()
    }

    /// Moves requests and replies once.
    fn turn(&mut self) {
        self.endpoint.send(&mut self.queue);
        while let Some(reply) = self.endpoint.receive() {
            match &mut self.log {
                Some(log) => log.spilled(reply, &mut self.pool, &mut self.queue),
                None => self.pool.put(reply.into_chunk()),
            }
        }
        self.endpoint.send(&mut self.queue);
    }

    /// Until the thread has nothing of it any more.
    fn settle(&mut self) {
        self.turn();
        while self.endpoint.under_way > 0 || !self.queue.is_empty() {
            self.awake
                .recv_timeout(Duration::from_secs(20))
                .expect("the thread answers");
            self.turn();
        }
    }

    /// Takes so many bytes of a client to which every replica keeps up.
    fn take(&mut self, count: u64) {
        let end = self.log().end() + count;
        while self.log().end() < end {
            let at = self.log().end();
            let piece: Vec<u8> = (at..end.min(at + 10_000)).map(byte).collect();
            let log = self.log.as_mut().unwrap();
            log.append(&piece, &mut self.pool);
            log.release(log.end(), true, &mut self.pool, &mut self.queue);
            self.settle();
        }
    }

    /// What a replica reads that joins.
    fn replay(&mut self) -> Vec<u8> {
        let mut replayed = Vec::new();
        loop {
            let log = self.log.as_mut().unwrap();
            match log.read(replayed.len() as u64) {
                Read::Bytes(bytes) => replayed.extend_from_slice(bytes),
                Read::Spilled => {
                    log.request(replayed.len() as u64, &mut self.pool, &mut self.queue);
                    self.settle();
                }
                Read::Gone | Read::End => return replayed,
            }
        }
    }

    fn close(&mut self) {
        let log = self.log.take().unwrap();
        log.close(&mut self.pool, &mut self.queue);
        self.settle();
        assert_eq!(self.pool.free(), self.pool.total(), "a chunk is lost");
    }
}

fn start(directory: &Path, workers: u64) -> (super::SpillHandle, Vec<Worker>) {
    let (mut wakes, mut receivers) = (Vec::<Wake>::new(), Vec::new());
    for _ in 0..workers {
        let (sender, receiver) = channel();
        wakes.push(Box::new(move || sender.send(()).unwrap_or(())));
        receivers.push(receiver);
    }
    let mut handle = Spill::start(directory, 64 * MIB, wakes).unwrap();
    let mut workers = Vec::new();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let endpoint = handle.endpoint(index).unwrap();
        workers.push(Worker::new(endpoint, receiver, index as u64 + 1));
        assert!(handle.endpoint(index).is_none());
    }
    (handle, workers)
}

#[test]
fn logs_of_two_workers_go_through_files_and_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (handle, mut workers) = start(directory.path(), 2);
    for worker in &mut workers {
        worker.take(2 * MIB + 777);
    }
    assert_eq!(
        names(directory.path()),
        ["session-1-1.spill", "session-1-2.spill"]
    );
    for worker in &mut workers {
        let replayed = worker.replay();
        assert_eq!(replayed.len() as u64, 2 * MIB + 777);
        assert!(replayed.iter().zip(0..).all(|(&b, at)| b == byte(at)));
        assert!(worker.log().is_whole());
    }
    workers[0].close();
    assert_eq!(get(&handle.counters().failures), 0);
    drop(handle);
    assert_eq!(
        names(directory.path()),
        [""; 0],
        "the files go with the thread"
    );
}

/// A file system of this size that nobody outside sees, for the calling thread and its children.
fn tiny_disk(at: &Path, bytes: u64) {
    unshare(CloneFlags::CLONE_NEWNS).expect("tests of full disks are run by root");
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    let size = format!("size={bytes}");
    mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )
    .unwrap();
}

#[test]
fn a_full_disk_cuts_the_log_and_gives_its_room_back() {
    let outer = tempfile::tempdir().unwrap();
    let directory: PathBuf = outer.path().to_owned();
    // A thread of its own, which ends with its mounts.
    let test = std::thread::spawn(move || {
        tiny_disk(&directory, 4 * MIB);
        let (handle, mut workers) = start(&directory, 2);
        workers[1].take(MIB);
        workers[0].take(8 * MIB);
        assert!(!workers[0].log().is_whole());
        assert!(
            workers[0].log().start() > 3 * MIB,
            "the client went on, past the disk"
        );
        assert!(get(&handle.counters().failures) > 0);
        assert_eq!(workers[0].replay(), b"");
        // The other one has the whole disk now, and lost nothing.
        workers[1].take(2 * MIB);
        assert_eq!(workers[1].replay().len() as u64, 3 * MIB);
        assert_eq!(names(&directory), ["session-1-2.spill"]);
        assert_eq!(get(&handle.counters().files), 1);
        for worker in &mut workers {
            worker.close();
        }
        drop(handle);
        assert_eq!(names(&directory), [""; 0]);
    });
    test.join().expect("the test itself");
}
