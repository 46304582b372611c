//! The units of the Debian package.

use crate::root;
use std::fs;
use std::process::Command;

/// What `systemd-analyze security` may find at most, of 100.
const EXPOSURE: &str = "30";

/// The units, each in a folder of its own with its programs replaced by one that is there.
fn units() -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let mut units = Vec::new();
    for name in ["lockstep-engine.service", "lockstepd.service"] {
        let path = root().join("ctl/debian/units").join(name);
        let text = fs::read_to_string(&path).expect("the unit is there");
        for program in ["/usr/bin/lockstep-engine", "/usr/bin/lockstepd"] {
            assert_eq!(
                text.contains(&format!("ExecStart={program}\n")),
                name.trim_end_matches(".service") == program.trim_start_matches("/usr/bin/"),
                "{name} and {program}"
            );
        }
        let here = folder.path().join(name);
        let programs = text
            .replace("/usr/bin/lockstep-engine", "/bin/true")
            .replace("/usr/bin/lockstepd", "/bin/true");
        fs::write(&here, programs).expect("the unit can be written");
        units.push(here);
    }
    (folder, units)
}

fn systemd_analyze(arguments: &[&str], units: &[std::path::PathBuf]) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(arguments).args(units).output();
    let output = output.expect("systemd-analyze is there: `make deps` installs it");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?}:\n{said}");
}

#[test]
fn the_units_are_right_for_systemd() {
    let (_folder, units) = units();
    systemd_analyze(&["verify", "--man=no"], &units);
}

#[test]
fn the_units_leave_their_programs_little() {
    let (_folder, units) = units();
    let threshold = format!("--threshold={EXPOSURE}");
    systemd_analyze(
        &["security", "--no-pager", "--offline=true", &threshold],
        &units,
    );
}

#[test]
fn what_the_package_installs_is_there() {
    let text = fs::read_to_string(root().join("ctl/Cargo.toml")).expect("the manifest is there");
    let manifest: toml::Table = text.parse().expect("the manifest is TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array();
    let assets = assets.expect("the package has assets");
    assert!(assets.len() > 5, "the assets are elsewhere now");
    for asset in assets {
        let source = asset[0].as_str().expect("an asset has a source");
        let is_built = source.starts_with("target/") || source.starts_with("../target/");
        let folder = source.split('*').next().unwrap_or(source);
        assert!(
            is_built || root().join("ctl").join(folder).exists(),
            "{source}"
        );
    }
}
