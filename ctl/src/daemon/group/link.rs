//! The store: etcd, each question with a limit of time.

use super::super::disk;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Identity, KvClient, PutOptions,
    TlsOptions, Txn, TxnOp, TxnOpResponse, WatchClient,
};
use lockstep_ctl_core::config::store::Store;
use lockstep_ctl_core::group::keys::{Keys, MAX_VALUE};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The largest answer: all members of a group with what they have found.
const MAX_ANSWER: usize = 256 << 20;
/// The largest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// A connection to the store.
#[derive(Clone)]
pub struct Link {
    client: Client,
    /// Where what stands.
    pub keys: Keys,
    /// Tells connections apart.
    pub number: u64,
    /// Leases that values share, by their time in seconds, and when each was granted.
    leases: Arc<Mutex<BTreeMap<u64, (i64, Instant)>>>,
    /// The lease that this balancer is a member by; 0 where it is none yet.
    seat: Arc<AtomicI64>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.number)
    }
}

/// The store has not done what it was asked for, or nobody knows whether it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

impl From<etcd_client::Error> for Unanswered {
    fn from(error: etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Unanswered(status.message().to_owned()),
            error => Unanswered(error.to_string()),
        }
    }
}

/// A value, and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The value.
    pub bytes: Vec<u8>,
    /// Its revision.
    pub revision: i64,
}

/// How long a value lasts that nobody writes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever.
    Forever,
    /// So long, to a second or two.
    Exactly(Duration),
    /// So long, and up to an eighth longer: many values share one lease then.
    About(Duration),
}

/// Waits for an answer of the store, not for ever.
pub async fn answer<T>(
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Unanswered> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Unanswered(format!("no answer for {PATIENCE:?}"))),
    }
}

impl Link {
    /// Connects to a store.
    pub async fn open(store: &Store) -> Result<Self, Unanswered> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let options = options(store).await?;
        let client = answer(Client::connect(&store.endpoints, Some(options))).await?;
        Ok(Link {
            client,
            keys: Keys::new(&store.group),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            leases: Arc::default(),
            seat: Arc::default(),
        })
    }

    /// To ask for many values at a time.
    pub fn values(&self) -> KvClient {
        self.client
            .kv_client()
            .max_decoding_message_size(MAX_ANSWER)
    }

    /// To hear of changes.
    pub fn watcher(&self) -> WatchClient {
        self.client
            .watch_client()
            .max_decoding_message_size(MAX_ANSWER)
    }

    /// To ask what has no function here.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Notes the lease that this balancer is a member by.
    pub fn sit(&self, lease: i64) {
        self.seat.store(lease, Ordering::Relaxed);
    }

    /// That lease.
    pub fn seat(&self) -> Option<i64> {
        Some(self.seat.load(Ordering::Relaxed)).filter(|&lease| lease != 0)
    }

    /// A value, where there is one.
    pub async fn get(&self, key: &str) -> Result<Option<Value>, Unanswered> {
        let reply = answer(self.client().get(key, None)).await?;
        Ok(reply.kvs().first().map(|kv| Value {
            bytes: kv.value().to_vec(),
            revision: kv.mod_revision(),
        }))
    }

    /// Writes a value where nobody has written since `revision`; 0 is where there is none. Returns
    /// what is there instead where somebody has.
    pub async fn put_if(
        &self,
        key: &str,
        value: Vec<u8>,
        revision: i64,
        lifetime: Lifetime,
    ) -> Result<Option<Value>, Unanswered> {
        if value.len() > MAX_VALUE {
            let text = format!(
                "a value of {} bytes is too large for the store",
                value.len()
            );
            return Err(Unanswered(text));
        }
        let lease = self.lease(lifetime).await?;
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
        let txn = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::put(key, value, options)])
            .or_else([TxnOp::get(key, None)]);
        let reply = answer(self.client().txn(txn)).await?;
        if reply.succeeded() {
            return Ok(None);
        }
        let there = reply.op_responses().into_iter().find_map(|op| match op {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| Value {
                bytes: kv.value().to_vec(),
                revision: kv.mod_revision(),
            }),
            _ => None,
        });
        // It was there when the lease ended: whoever asks again finds that out.
        there
            .map(Some)
            .ok_or_else(|| Unanswered("the value has just been forgotten; ask again".to_owned()))
    }

    async fn lease(&self, lifetime: Lifetime) -> Result<Option<i64>, Unanswered> {
        let (time, shared) = match lifetime {
            Lifetime::Forever => return Ok(None),
            Lifetime::Exactly(time) => (time, false),
            Lifetime::About(time) => (time, true),
        };
        // A lease that is shorter than what it stands for would let others begin anew too early.
        let seconds = time.as_millis().div_ceil(1_000);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).max(1);
        let leases = || self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let known = leases().get(&seconds).copied();
        if let Some((lease, since)) = known.filter(|_| shared)
            && since.elapsed() < time / 8
        {
            return Ok(Some(lease));
        }
        let granted = if shared {
            seconds + seconds / 8
        } else {
            seconds
        };
        let granted = i64::try_from(granted).unwrap_or(i64::MAX);
        let reply = answer(self.client().lease_grant(granted, None)).await?;
        if shared {
            leases().insert(seconds, (reply.id(), Instant::now()));
        }
        Ok(Some(reply.id()))
    }
}

/// What the files say that the configuration names, read where a disk that hangs holds up nobody.
async fn options(store: &Store) -> Result<ConnectOptions, Unanswered> {
    let named = store.clone();
    let read = tokio::task::spawn_blocking(move || Files::read(&named));
    let hangs = || {
        Unanswered(format!(
            "files of the store cannot be read within {PATIENCE:?}"
        ))
    };
    let read = timeout(PATIENCE, read).await.map_err(|_| hangs())?;
    let files = read.map_err(|error| Unanswered(error.to_string()))??;
    let mut options = ConnectOptions::new()
        .with_connect_timeout(PATIENCE)
        // A store that is slow for less than a lease is not gone.
        .with_keep_alive(PATIENCE, store.lease)
        .with_keep_alive_while_idle(true)
        // A member that is cut off from the others would answer with what was.
        .with_require_leader(true);
    if let Some((user, password)) = files.user {
        options = options.with_user(user, password);
    }
    if let Some(tls) = files.tls {
        options = options.with_tls(tls);
    }
    Ok(options)
}

/// What is in the files of a store.
struct Files {
    /// A name and its password.
    user: Option<(String, String)>,
    tls: Option<TlsOptions>,
}

impl Files {
    fn read(store: &Store) -> Result<Self, Unanswered> {
        let user = match &store.user {
            Some((user, file)) => Some((user.clone(), password(file)?)),
            None => None,
        };
        let tls = match &store.tls {
            Some(tls) => {
                let ca = Certificate::from_pem(read(&tls.ca)?);
                let mut with = TlsOptions::new().ca_certificate(ca);
                if let Some((certificate, key)) = &tls.own {
                    with = with.identity(Identity::from_pem(read(certificate)?, read(key)?));
                }
                Some(with)
            }
            None => None,
        };
        Ok(Files { user, tls })
    }
}

fn password(file: &Path) -> Result<String, Unanswered> {
    let password = read(file)?;
    let password = String::from_utf8_lossy(&password).trim_end().to_owned();
    if password.len() > MAX_PASSWORD {
        let text = format!("{} is no file with a password", file.display());
        return Err(Unanswered(text));
    }
    Ok(password)
}

fn read(path: &Path) -> Result<Vec<u8>, Unanswered> {
    let read = disk::read_named(path);
    read.map_err(|error| Unanswered(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_that_are_none_are_told_of_and_waited_for_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("password");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = format!(
            "[store]\nendpoints = [\"http://127.0.0.1:1\"]\nuser = \"lockstep\"\npassword_file = \"{}\"\n",
            pipe.display()
        );
        let file = lockstep_ctl_core::config::parse("lockstepd.toml", &text).unwrap();
        let store = file.config.store.unwrap();
        let Unanswered(error) = Link::open(&store).await.unwrap_err();
        assert!(error.contains("password: it is no regular file"), "{error}");
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, "x".repeat(MAX_PASSWORD + 1)).unwrap();
        let Unanswered(error) = Link::open(&store).await.unwrap_err();
        assert!(error.contains("is no file with a password"), "{error}");
    }
}
