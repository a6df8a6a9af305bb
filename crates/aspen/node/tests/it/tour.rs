//! The tour checks every line that it prints; here it must come to its end.

use tempfile::TempDir;

use crate::process::program;

#[test]
fn the_tour_ends_well() {
    let folder = TempDir::new().unwrap();
    let output = program()
        .args(["dev", "--tour"])
        .env("TMPDIR", folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for step in [
        "write",
        "scan",
        "compare-swap",
        "leader killed",
        "nothing lost",
        "restart",
        "grow",
        "done",
    ] {
        assert!(text.lines().any(|line| line.starts_with(step)), "{step} is missing in\n{text}");
    }
    // Data, logs and the ticket went with the cluster.
    let mut left = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { left.push(path) }
        }
    }
    assert!(left.is_empty(), "left behind: {left:?}");
}
