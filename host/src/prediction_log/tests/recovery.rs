//! Damaged files: the host goes on, what can be read is recovered, and the damaged file is kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

/// Size of the pages of the file.
const PAGE: usize = 16 << 10;
/// Number of records of [`filled`].
const RECORDS: u64 = 3000;

/// A folder with a file of [`RECORDS`] records in the order of their numbers, of which each hundredth
/// has feedback.
fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let start = SystemTime::now() - Duration::from_secs(60);
    for number in 0..RECORDS {
        let time = start + Duration::from_millis(number);
        assert!(log.append(entry_at(id_at(time, number), 0, time)));
        if number % 100 == 0 {
            feed(&log, vec![item(id_at(time, number), label("setosa"), 1)]).unwrap();
        }
    }
    assert_eq!(close(&log).written, RECORDS);
    folder
}

fn damage(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(schema::FILE);
    let mut file = fs::read(&path).unwrap();
    assert!(file.len() > 30 * PAGE);
    change(&mut file);
    fs::write(&path, file).unwrap();
}

/// Number of records in a page, if it is a leaf of their table.
fn records_of(file: &[u8], page: usize) -> u64 {
    /// Type of the leaves of tables without row ids, and of indices.
    const LEAF: u8 = 10;
    /// Minimum size of a record, in bytes: those of feedback and of sources are smaller.
    const RECORD: usize = 150;
    let page = &file[page * PAGE..][..PAGE];
    let [cells, content] =
        [3, 5].map(|at| usize::from(u16::from_be_bytes([page[at], page[at + 1]])));
    let is_leaf = page[0] == LEAF && cells > 0 && (PAGE - content) / cells >= RECORD;
    if is_leaf { cells as u64 } else { 0 }
}

/// Serves on a file that may be damaged: a new record is written. Returns the numbers of all.
fn serve(folder: &Path) -> BTreeSet<u64> {
    let log = open(folder);
    assert!(log.append(entry(id(RECORDS), 0)));
    assert_eq!(close(&log).written, 1);
    assert_eq!(log.problem(), None);
    let records = records(folder);
    let number = |record: &StoredRecord| record.id.as_u64_pair().1 & u64::from(u32::MAX);
    let numbers: BTreeSet<_> = records.iter().map(number).collect();
    assert!(numbers.contains(&RECORDS));
    numbers
}

/// The damaged files that were kept.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_kept = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("predictions.db.corrupt-")
            && !name.ends_with("-wal")
            && !name.ends_with("-shm")
    };
    paths.filter(is_kept).collect()
}

#[test]
fn file_that_is_no_database_is_replaced() {
    let text = b"this was a database once, and is not one any more";
    for content in [&text[..], &[0; 3 * PAGE], &[0xff; 100]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(schema::FILE), content).unwrap();
        assert_eq!(serve(folder.path()).len(), 1);
        let kept = kept(folder.path());
        assert_eq!(fs::read(&kept[0]).unwrap(), content);
    }
}

#[test]
fn empty_file_becomes_a_log() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(schema::FILE), b"").unwrap();
    assert_eq!(serve(folder.path()).len(), 1);
    assert!(kept(folder.path()).is_empty());
}

#[test]
fn truncated_file_is_recovered_up_to_its_end() {
    let folder = filled();
    damage(folder.path(), |file| file.truncate(file.len() / 2 + 100));
    let damaged = fs::read(folder.path().join(schema::FILE)).unwrap();
    let numbers = serve(folder.path());
    assert!(numbers.len() as u64 > RECORDS / 3, "{}", numbers.len());
    assert!((0..RECORDS / 3).all(|number| numbers.contains(&number)), "from the start on");
    let kept = kept(folder.path());
    assert_eq!(fs::read(&kept[0]).unwrap(), damaged, "the damaged file is not changed");
}

#[test]
fn records_before_between_and_after_damaged_pages_are_recovered() {
    let folder = filled();
    // Two leaves of the table, with intact ones before, between and after them.
    let mut lost = 0;
    damage(folder.path(), |file| {
        let pages = file.len() / PAGE;
        for start in [pages / 3, pages * 2 / 3] {
            let page = (start..pages).find(|&page| records_of(file, page) > 0).unwrap();
            lost += records_of(file, page);
            file[page * PAGE..][..PAGE / 2].fill(0xff);
        }
    });
    let numbers = serve(folder.path());
    assert_eq!(numbers.len() as u64, RECORDS + 1 - lost, "only their records are lost");
    assert_eq!(kept(folder.path()).len(), 1);
}

#[test]
fn damaged_sources_are_recovered_from_their_index() {
    let folder = filled();
    let connection = rusqlite::Connection::open(folder.path().join(schema::FILE)).unwrap();
    let query = "SELECT rootpage FROM sqlite_schema WHERE name = 'sources'";
    let root: u32 = connection.query_row(query, [], |row| row.get(0)).unwrap();
    drop(connection);
    damage(folder.path(), |file| file[(root as usize - 1) * PAGE..][..PAGE].fill(0xff));
    assert_eq!(serve(folder.path()).len() as u64, RECORDS + 1);
}

#[test]
fn feedback_and_quality_are_recovered() {
    let folder = filled();
    damage(folder.path(), |file| {
        let page = file.len() / PAGE / 2;
        file[page * PAGE..][..PAGE].fill(0);
    });
    let log = open(folder.path());
    wait_until("it is recovered", || !log.quality().is_empty());
    let quality = log.quality();
    let accuracy = quality[0].1.classification.as_ref().unwrap();
    // A page has fewer than 100 records, of which one may have feedback.
    assert!((29..=30).contains(&accuracy.n), "{}", accuracy.n);
    close(&log);
}

#[test]
fn garbage_at_the_end_of_the_write_ahead_log_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(schema::FILE);
    let log = open(folder.path());
    (0..100).for_each(|number| assert!(log.append(entry(id(number), 0))));
    wait_until("they are written", || log.accounting().written == 100);
    // As a crash of the system leaves it: a frame that is written in part.
    let copy = tempfile::tempdir().unwrap();
    for path in [path.clone(), schema::wal(&path)] {
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    close(&log);
    let wal = schema::wal(&copy.path().join(schema::FILE));
    let mut bytes = fs::read(&wal).unwrap();
    bytes.extend_from_slice(&[0xa5; PAGE + 7]);
    fs::write(&wal, bytes).unwrap();
    assert_eq!(serve(copy.path()).len(), 101);
    // Or without a valid frame at all.
    fs::write(&wal, [0xa5; 3 * PAGE]).unwrap();
    assert_eq!(open_and_close(copy.path()).written, 0);
    assert!(kept(copy.path()).is_empty());
}

fn open_and_close(folder: &Path) -> Accounting {
    close(&open(folder))
}

#[test]
fn damage_that_a_write_meets_loses_no_new_record() {
    let folder = filled();
    let log = open(folder.path());
    assert!(log.append(entry(id(RECORDS), 0)));
    wait_until("it is written", || log.accounting().written == 1);
    damage(folder.path(), |file| {
        let pages = file.len() / PAGE;
        for page in 1..pages {
            if records_of(file, page) > 0 {
                file[page * PAGE..][..PAGE / 2].fill(0xff);
            }
        }
    });
    // The change of another connection makes the writer read the pages again.
    let other = rusqlite::Connection::open(log.path()).unwrap();
    other.pragma_update(None, "user_version", schema::VERSION).unwrap();
    drop(other);
    for number in 1..50 {
        assert!(log.append(entry(id(RECORDS + number), 0)));
    }
    let accounting = close(&log);
    assert_eq!((accounting.accepted, accounting.written), (50, 50));
    assert_eq!(kept(folder.path()).len(), 1);
    assert!(records(folder.path()).len() >= 49);
}

#[test]
fn recovery_that_was_interrupted_before_its_last_step_is_completed() {
    let folder = filled();
    let path = folder.path().join(schema::FILE);
    let mut recovering = path.clone().into_os_string();
    recovering.push("-recovering");
    // The damaged file is moved aside, and the complete new one is not in its place yet.
    fs::rename(&path, &recovering).unwrap();
    assert_eq!(serve(folder.path()).len() as u64, RECORDS + 1);
    // One that was interrupted earlier is started again.
    fs::write(&recovering, b"incomplete").unwrap();
    damage(folder.path(), |file| file.truncate(file.len() / 2));
    assert!(serve(folder.path()).len() as u64 > RECORDS / 3);
    assert!(!Path::new(&recovering).exists());
}

#[test]
fn damaged_file_is_replaced_by_an_empty_one_if_the_disk_has_no_space() {
    // Only root can mount: otherwise the tests above must suffice.
    let Some(disk) = SmallDisk::mount(3 << 20) else { return };
    let folder = filled();
    damage(folder.path(), |file| file.truncate(file.len() - 10 * PAGE));
    let path = disk.path().join(schema::FILE);
    fs::copy(folder.path().join(schema::FILE), &path).unwrap();
    let mut file = fs::File::create(disk.path().join("ballast")).unwrap();
    let room = (3 << 20) - path.metadata().unwrap().len();
    for _ in 0..(room - (900 << 10)) / 4096 {
        std::io::Write::write_all(&mut file, &[0; 4096]).unwrap();
    }
    assert_eq!(serve(disk.path()).len(), 1);
    assert_eq!(kept(disk.path()).len(), 1);
}
