//! Databases are asked in their own words.

use super::*;

#[test]
fn redis_and_postgresql_are_asked_in_their_own_words() {
    let redis = r#"type = "tcp", port = 6379, send = "PING\r\n", expect = "+PONG""#;
    let postgres = r#"type = "tcp", port = 5432, send = "hex:0000000804d2162f", expect = "N""#;
    let services = service("redis", redis, &[A, B]) + &service("postgres", postgres, &[A, B]);
    let (bench, (redis, postgres, _others)) = Bench::new(&services, FAST, |place, net| {
        let cluster = Cluster::new(place);
        let redis = [A, B].map(|a| {
            net.start(
                "redis-server",
                &[
                    "--port",
                    "6379",
                    "--bind",
                    a,
                    "--save",
                    "",
                    "--protected-mode",
                    "no",
                ],
            )
        });
        let postgres = [A, B].map(|a| cluster.start(net, place, a));
        for address in [A, B] {
            wait_for("redis", || net.accepts(address, 6379));
            wait_for("postgres", || net.accepts(address, 5432));
        }
        let [redis, other] = redis;
        let [postgres, another] = postgres;
        (redis, postgres, (other, another))
    });
    for name in ["redis", "postgres"] {
        wait_for(name, || bench.health(name, A, "state") == "up");
        bench.wait_in_force(name, &[A, B]);
    }
    redis.signal(Signal::SIGSTOP);
    bench.wait_in_force("redis", &[B]);
    // The kernel still accepts connections for it, and nobody answers.
    bench.wait_for_error("redis", A, "no expected answer within 100ms");
    redis.signal(Signal::SIGCONT);
    bench.wait_in_force("redis", &[A, B]);
    postgres.kill();
    bench.wait_in_force("postgres", &[B]);
    bench.wait_for_error("postgres", A, "connection refused");
    bench.wait_in_force("redis", &[A, B]);
}

/// A cluster of PostgreSQL, which does not run as root.
struct Cluster {
    bin: PathBuf,
    data: PathBuf,
}

impl Cluster {
    fn new(place: &Place) -> Self {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
        let newest = versions.map(|v| v.unwrap().path()).max().unwrap();
        let cluster = Cluster {
            bin: newest.join("bin"),
            data: place.path("cluster"),
        };
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(&cluster.data).unwrap();
        run(Command::new("chown").arg("postgres:").arg(&cluster.data));
        let mut command = as_postgres(Command::new("setpriv"));
        command.arg(cluster.bin.join("initdb")).arg("--no-sync");
        command.args(["--auth=trust", "--locale=C", "--pgdata"]);
        run(command.arg(&cluster.data).current_dir("/"));
        cluster
    }

    fn start(&self, net: &Net, place: &Place, address: &str) -> Server {
        let data = place.path(&format!("postgres-{address}"));
        run(Command::new("cp").arg("-a").arg(&self.data).arg(&data));
        let mut command = as_postgres(net.command("setpriv"));
        command.arg(self.bin.join("postgres")).arg("-D").arg(&data);
        for setting in [
            "fsync=off",
            "unix_socket_directories=",
            "shared_buffers=16MB",
        ] {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("listen_addresses={address}")]);
        Server::start(command.stderr(std::process::Stdio::null()).current_dir("/"))
    }
}

fn as_postgres(mut command: Command) -> Command {
    command.args([
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
        "--clear-groups",
        "--",
    ]);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
