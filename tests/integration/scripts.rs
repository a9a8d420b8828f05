//! `deploy/local/up` and `down`, as a person types them.
//!
//! What they start goes into the background for good, so they run in a process namespace of their
//! own: when that ends, however it ends, all is gone.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ministry_tests::ports::Ports;
use ministry_tests::{Program, cluster, sandbox};

use crate::{MINUTE, text};

struct Place {
    folder: tempfile::TempDir,
    ports: Ports,
}

impl Place {
    fn new() -> Place {
        sandbox::enter_mount_namespace();
        Place { folder: sandbox::folder(), ports: Ports::reserve() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A story with `up`, `down`, `ctl`, `$mount` and `$state`.
    fn story(&self, text: &str) -> Program {
        let prelude =
            "up() { \"$scripts/up\" --bin \"$bin\" --state \"$state\" --mount \"$mount\" \
                \"$@\"; }
            down() { \"$scripts/down\" --state \"$state\" \"$@\"; }
            ctl() { \"$bin/ministryctl\" --admin \"$state/admin\" \"$@\"; }\n";
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' folder");
        Program::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["bash", "-euo", "pipefail", "-c", &format!("{prelude}{text}")])
            .env("scripts", top.join("deploy/local"))
            .env("bin", cluster::binaries())
            .env("state", self.path("state"))
            .env("mount", self.path("mount"))
            .env("port", self.ports.base().to_string())
            .within(3 * MINUTE)
    }
}

#[test]
fn up_brings_a_cluster_down_stops_it_and_up_brings_the_same_one_back() {
    let place = Place::new();
    let out = place
        .story(
            "up --port $port
            echo kept > \"$mount/file\"; head -c 200000 /dev/urandom > \"$mount/data\"
            sum=$(sha256sum < \"$mount/data\")
            up | grep 'already running'
            ctl status
            down
            ! mountpoint -q \"$mount\"
            down
            echo '-- second time'; up
            grep kept \"$mount/file\"; [ \"$sum\" = \"$(sha256sum < \"$mount/data\")\" ]
            echo '-- after a crash'; echo synced > \"$mount/more\"; sync \"$mount/more\"
            kill -9 $(cat \"$state\"/run/node-*.pid) $(pgrep -f \"ministryctl mount $mount\")
            sleep 0.2
            up
            grep kept \"$mount/file\"; grep synced \"$mount/more\"
            [ \"$sum\" = \"$(sha256sum < \"$mount/data\")\" ]
            down --wipe
            [ ! -e \"$state\" ]
            ! pgrep -f \"$state\"",
        )
        .ok();
    println!("{out}");
    // From built binaries to a usable mount: told, not asserted, for the machine may be busy.
    let first = out.lines().find(|line| line.contains("mounted at")).unwrap();
    println!("usable: {first}");
    for wanted in ["Ministry is mounted at", "metrics", "president", "down"] {
        assert!(out.contains(wanted), "{wanted} is missing in the summary: {out}");
    }
    // A node of the same cluster: its founding is not repeated.
    assert_eq!(out.matches("made the cluster's authority").count(), 1);
}

#[test]
fn up_refuses_in_one_line_what_cannot_work() {
    let place = Place::new();
    let refused = |arguments: &str, code: i32, why: &str| {
        let ended = place.story(&format!("up {arguments}")).run();
        assert_eq!(ended.status.code(), Some(code), "{arguments}: {ended}");
        assert!(ended.err.contains(why), "{arguments}: {ended}");
        assert_eq!(ended.err.trim().lines().count(), 1, "{arguments}: one line: {ended}");
        assert!(!place.path("state").exists(), "{arguments}: nothing was begun");
    };
    refused("--nodes 2", 2, "--nodes");
    refused("--nodes many", 2, "--nodes");
    refused("--port 80", 2, "--port");
    refused("--nonsense", 2, "--nonsense");
    refused("--mount", 2, "--mount");
    refused("--bin /nonexistent", 2, "--bin");
    let taken = TcpListener::bind(("127.0.0.1", place.ports.base() + 3)).unwrap();
    let number = (place.ports.base() + 3).to_string();
    refused("--port $port", 1, &format!("port {number} is taken"));
    drop(taken);
    let full = place.path("mount");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("file"), "mine").unwrap();
    refused("--port $port", 1, "not empty");
    assert_eq!(std::fs::read(full.join("file")).unwrap(), b"mine");
    std::fs::remove_file(full.join("file")).unwrap();
    std::fs::remove_dir(&full).unwrap();
    std::fs::write(&full, "").unwrap();
    refused("--port $port", 1, text(&full));
}
