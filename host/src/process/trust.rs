//! Which files and folders other users can change.
//!
//! Compiled components are native code: a user that can write one can do everything this process can. The
//! same holds for a user that can replace the folder it is in.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Write permission of the group and of others.
pub const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a folder with this bit, a user can rename and delete only files of its own.
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// Checks that a file or folder belongs to this user or to root, and that no other user can write it.
///
/// # Errors
/// It belongs to another user, or others can write it.
pub fn check_owner(metadata: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    ensure!(
        owner == user || owner == ROOT,
        "it belongs to user {owner}, not to {user}; use another"
    );
    let mode = metadata.mode() & 0o7777;
    ensure!(mode & WRITABLE_BY_OTHERS == 0, "other users can write it (mode {mode:o}): chmod go-w");
    Ok(())
}

/// Checks that no other user can change the folder, or put another in its place. The path is canonical.
///
/// # Errors
/// Names the folder that another user can change.
pub fn check_folder(folder: &Path) -> Result<()> {
    check_owner(&folder.metadata()?)?;
    for parent in folder.ancestors().skip(1) {
        let metadata = parent.metadata().with_context(|| parent.display().to_string())?;
        if metadata.mode() & STICKY == 0 {
            check_parent(&metadata).with_context(|| {
                format!("it is in {}, where it can be replaced", parent.display())
            })?;
        }
    }
    Ok(())
}

/// [`check_owner`] of a parent folder. Its group may write if it is that of this process: many systems give
/// each user a group of its own, and create folders that the group can write.
fn check_parent(metadata: &Metadata) -> Result<()> {
    let group = rustix::process::getegid().as_raw();
    let is_own_group = [group, ROOT].contains(&metadata.gid());
    let mode = metadata.mode() & 0o7777;
    if is_own_group && mode & WRITABLE_BY_OTHERS == 0o020 {
        let user = rustix::process::geteuid().as_raw();
        ensure!(
            [user, ROOT].contains(&metadata.uid()),
            "that belongs to user {}, not to {user}",
            metadata.uid()
        );
        return Ok(());
    }
    check_owner(metadata)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_or_replace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().canonicalize().unwrap().join("parent");
        let folder = parent.join("folder");
        fs::create_dir_all(&folder).unwrap();
        let set =
            |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for (of_parent, of_folder, part) in [
            (0o755, 0o700, ""),
            (0o755, 0o755, ""),
            (0o755, 0o777, "other users can write it (mode 777)"),
            (0o755, 0o1777, "other users can write it (mode 1777)"),
            (0o755, 0o770, "other users can write it (mode 770)"),
            (0o777, 0o700, "parent, where it can be replaced: other users can write it (mode 777)"),
            (0o1777, 0o700, ""),
            // The group is this process's.
            (0o775, 0o700, ""),
        ] {
            set(&parent, of_parent);
            set(&folder, of_folder);
            let checked = check_folder(&folder);
            match part {
                "" => checked.unwrap(),
                part => {
                    let error = format!("{:#}", checked.unwrap_err());
                    assert!(error.contains(part), "{of_parent:o} {of_folder:o}: {error}");
                }
            }
        }
    }
}
