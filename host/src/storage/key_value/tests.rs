//! Tests of the storages in memory and in files; Redis is tested end to end.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::bindings::SQLITE_FILE;
use super::memory::MemoryStore;
use super::sqlite::{Database, MAX_OPERATIONS, SqliteStore};
use super::*;
use crate::config::blocked_networks::BlockedNetworks;
use crate::storage::redis::RedisConnections;

const MIB: u64 = 1 << 20;

fn memory(max_size: u64) -> GrantedStore {
    GrantedStore { label: "a".into(), storage: Arc::new(MemoryStore::new(max_size)) }
}

fn sqlite(path: &Path, label: &str, max_size: u64) -> GrantedStore {
    let database = Arc::new(Database::open(path, max_size).unwrap());
    let (label, permits) = (label.to_owned(), Arc::new(Semaphore::new(MAX_OPERATIONS)));
    GrantedStore {
        label: label.clone(),
        storage: Arc::new(SqliteStore { database, label, permits }),
    }
}

/// An empty store of each kind, with the folder of the file.
fn stores(max_size: u64) -> (tempfile::TempDir, [GrantedStore; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let file = sqlite(&dir.path().join("made/here.db"), "a", max_size);
    (dir, [memory(max_size), file])
}

fn entry(key: &str, value: &str) -> (String, Vec<u8>) {
    (key.into(), value.into())
}

#[tokio::test]
async fn value_is_stored_until_it_is_deleted() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        assert_eq!(store.get("k".into()).await, Ok(None));
        store.set("k".into(), b"1".to_vec()).await.unwrap();
        store.set("k".into(), b"2".to_vec()).await.unwrap();
        assert_eq!(store.get("k".into()).await, Ok(Some(b"2".to_vec())));
        store
            .set_many(vec![entry("", "empty"), entry("l", ""), entry("l", "twice")])
            .await
            .unwrap();
        let keys = ["l", "none", "", "l"].map(String::from).to_vec();
        let found =
            [("l", Some("twice")), ("none", None), ("", Some("empty")), ("l", Some("twice"))];
        let found = found.map(|(key, value)| (key.to_owned(), value.map(Into::into)));
        assert_eq!(store.get_many(keys).await, Ok(found.to_vec()));
        assert_eq!(store.all_keys().await, Ok(["", "k", "l"].map(String::from).to_vec()));
        store.delete_many(["k", "none"].map(String::from).to_vec()).await.unwrap();
        assert_eq!(store.exists("k".into()).await, Ok(false));
        assert_eq!(store.exists("l".into()).await, Ok(true));
        for nothing in [store.set_many(vec![]).await, store.delete_many(vec![]).await] {
            assert_eq!(nothing, Ok(()));
        }
        assert_eq!(store.get_many(vec![]).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn increment_uses_the_number_format_of_spin() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        assert_eq!(store.increment("n".into(), 5).await, Ok(5));
        assert_eq!(store.increment("n".into(), -7).await, Ok(-2));
        assert_eq!(store.get("n".into()).await, Ok(Some((-2_i64).to_le_bytes().to_vec())));
        let StoreError(problem) = store.increment("n".into(), i64::MIN).await.unwrap_err();
        assert!(problem.contains("64 bits"), "{problem}");
        store.set("n".into(), b"12".to_vec()).await.unwrap();
        let StoreError(problem) = store.increment("n".into(), 1).await.unwrap_err();
        assert!(problem.contains("2 bytes is not a number"), "{problem}");
    }
}

#[tokio::test]
async fn swap_succeeds_only_if_the_value_is_unchanged() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        let swap = |seen: Option<&str>, value: &str| {
            store.swap("k".into(), seen.map(Into::into), value.into())
        };
        assert_eq!(swap(Some("1"), "2").await, Ok(false));
        assert_eq!(swap(None, "1").await, Ok(true));
        assert_eq!(swap(None, "2").await, Ok(false));
        assert_eq!(swap(Some("1"), "2").await, Ok(true));
        assert_eq!(store.get("k".into()).await, Ok(Some(b"2".to_vec())));
    }
}

#[tokio::test]
async fn keys_are_listed_in_pages_each_once() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let long = "k".repeat(MAX_KEY - 4);
        let keys: Vec<_> = (0..3000).map(|i| format!("{long}{i:04}")).collect();
        store.set_many(keys.iter().map(|key| entry(key, "")).collect()).await.unwrap();
        let first = store.keys(None).await.unwrap();
        assert!(first.next.is_some() && (900..1000).contains(&first.keys.len()));
        assert_eq!(store.all_keys().await, Ok(keys));
    }
}

/// Each key takes some memory here and in the guest, however short it is.
#[tokio::test]
async fn short_keys_are_listed_in_pages_too() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let keys: Vec<_> =
            (0..PAGE_SIZE / ENTRY_OVERHEAD + 100).map(|i| format!("{i:05}")).collect();
        for part in keys.chunks(MAX_KEYS) {
            store.set_many(part.iter().map(|key| entry(key, "")).collect()).await.unwrap();
        }
        let first = store.keys(None).await.unwrap();
        assert!(
            first.next.is_some() && first.keys.len() <= PAGE_SIZE / ENTRY_OVERHEAD,
            "{}",
            first.keys.len()
        );
        assert_eq!(store.all_keys().await, Ok(keys));
    }
}

/// Another program may have set it.
#[tokio::test]
async fn key_over_the_limit_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    let store = sqlite(&path, "a", MIB);
    let long = "k".repeat(MAX_KEY + 1);
    let insert = "INSERT INTO spin_key_value (store, key, value) VALUES ('a', ?1, x'00')";
    rusqlite::Connection::open(&path).unwrap().execute(insert, [&long]).unwrap();
    store.set("k".into(), vec![]).await.unwrap();
    assert_eq!(store.all_keys().await, Ok(vec!["k".into(), long]));
}

#[tokio::test]
async fn number_of_keys_in_a_batch_is_limited() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let keys = |count| (0..count).map(|key: usize| key.to_string()).collect::<Vec<_>>();
        let entries = |count| keys(count).into_iter().map(|key| (key, vec![1])).collect();
        store.set_many(entries(MAX_KEYS)).await.unwrap();
        assert_eq!(store.get_many(keys(MAX_KEYS)).await.map(|found| found.len()), Ok(MAX_KEYS));
        store.delete_many(keys(MAX_KEYS)).await.unwrap();
        let many = 1_000_000;
        for result in [
            store.get_many(keys(many)).await.map(drop),
            store.set_many(entries(many)).await,
            store.delete_many(keys(many)).await,
        ] {
            let StoreError(problem) = result.unwrap_err();
            assert!(
                problem.contains("1000000 keys in a batch exceed the limit of 10000"),
                "{problem}"
            );
        }
        assert_eq!(store.all_keys().await, Ok(vec![]));
    }
}

#[tokio::test]
async fn operation_of_a_dropped_call_is_stopped_and_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::open(&dir.path().join("kv.db"), MIB).unwrap());
    let permits = Arc::new(Semaphore::new(MAX_OPERATIONS));
    let store = SqliteStore { database, label: "a".into(), permits: Arc::clone(&permits) };
    let (start, started) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let endless = store.change(move |transaction, label, caller| {
        start.send(()).unwrap();
        let error = loop {
            sqlite::set(transaction, label, "k", b"v")?;
            if let Err(error) = super::sqlite::check(caller) {
                break error;
            }
        };
        stop.send(error.clone()).unwrap();
        Err::<(), _>(error)
    });
    tokio::select! {
        _ = started => {}
        result = endless => panic!("{result:?}"),
    }
    // The future is dropped: the operation stops and is rolled back, and the thread is free.
    assert!(stopped.await.unwrap().0.contains("the caller was dropped"));
    assert_eq!(store.exists("k".into()).await, Ok(false));
    assert_eq!(permits.available_permits(), MAX_OPERATIONS);
}

/// Operations of one component wait for each other before they wait for the thread.
#[tokio::test]
async fn queued_operations_of_a_component_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let database = Arc::new(Database::open(&dir.path().join("kv.db"), MIB).unwrap());
    let component = || SqliteStore {
        database: Arc::clone(&database),
        label: "a".into(),
        permits: Arc::new(Semaphore::new(MAX_OPERATIONS)),
    };
    let (busy, other) = (component(), component());
    let (go, wait) = std::sync::mpsc::channel();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let blocking = |_| {
        let wait = Arc::clone(&wait);
        busy.change(move |_, _, _| {
            wait.lock().unwrap().recv().map_err(|e| StoreError(e.to_string()))
        })
    };
    // Ten times as many operations as the limit, and then one of another component.
    let many = futures::future::join_all((0..10 * MAX_OPERATIONS).map(blocking));
    let first = async {
        (0..MAX_OPERATIONS).for_each(|_| go.send(()).unwrap());
        let set = timeout(OPERATION_TIMEOUT, other.set(vec![entry("k", "v")])).await;
        (0..9 * MAX_OPERATIONS).for_each(|_| go.send(()).unwrap());
        set
    };
    let (results, set) = tokio::join!(many, first);
    assert_eq!(set, Ok(Ok(())), "after the first {MAX_OPERATIONS}");
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test]
async fn keys_and_values_over_the_limits_are_refused() {
    let (_dir, stores) = stores(64 * MIB);
    for store in stores {
        let refused = |result: StoreResult<()>, part: &str| {
            let StoreError(problem) = result.unwrap_err();
            assert!(problem.contains(part), "{problem}");
        };
        let long = "k".repeat(MAX_KEY + 1);
        refused(store.set(long.clone(), vec![]).await, "a key of 1025 bytes");
        refused(store.exists(long.clone()).await.map(drop), "a key of 1025 bytes");
        refused(store.get(long).await.map(drop), "a key of 1025 bytes");
        let largest = vec![7; MAX_VALUE];
        store.set("k".repeat(MAX_KEY), largest.clone()).await.unwrap();
        assert_eq!(store.get("k".repeat(MAX_KEY)).await, Ok(Some(largest)));
        refused(store.set("k".into(), vec![7; MAX_VALUE + MAX_KEY]).await, "more than 16777216");
        store.set("k".into(), vec![7; MAX_VALUE / 2]).await.unwrap();
        let thrice = vec!["k".to_owned(); 3];
        refused(store.get_many(thrice).await.map(drop), "more than 16777216");
    }
}

#[tokio::test]
async fn full_store_refuses_entries_that_do_not_fit() {
    let (_dir, stores) = stores(MIB);
    for store in stores {
        let quarter = || vec![7; 1 << 18];
        for key in 0.. {
            let Err(StoreError(problem)) = store.set(format!("k{key}"), quarter()).await else {
                continue;
            };
            assert!(problem.contains("full") && problem.contains("max_size"), "{problem}");
            assert!((2..=4).contains(&key), "{key} quarters in one");
            break;
        }
        // A batch that does not fit sets no entry.
        let batch = vec![("small".to_owned(), vec![1]), ("large".to_owned(), quarter())];
        assert!(store.set_many(batch).await.is_err());
        assert_eq!(store.exists("small".into()).await, Ok(false));
        store.delete_many(vec!["k0".into()]).await.unwrap();
        store.set("k".into(), vec![7; 1000]).await.unwrap();
        // A value can be replaced by one of the same size.
        store.set("k1".into(), quarter()).await.unwrap();
    }
}

#[tokio::test]
async fn file_persists_and_each_label_has_its_own_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.db");
    sqlite(&path, "a", MIB).set("k".into(), b"a".to_vec()).await.unwrap();
    // As another process or a restarted host opens it.
    let (a, b) = (sqlite(&path, "a", MIB), sqlite(&path, "b", MIB));
    assert_eq!(a.get("k".into()).await, Ok(Some(b"a".to_vec())));
    assert_eq!(b.get("k".into()).await, Ok(None));
    b.set("k".into(), b"b".to_vec()).await.unwrap();
    assert_eq!(a.get("k".into()).await, Ok(Some(b"a".to_vec())));
}

#[tokio::test]
async fn stores_are_opened_as_their_labels_are_bound() {
    let dir = tempfile::tempdir().unwrap();
    let connections = RedisConnections::new(
        1,
        crate::http::client_tls::client().unwrap(),
        BlockedNetworks::default(),
    );
    let mut bindings = Bindings { folder: dir.path().join("state"), ..Bindings::default() };
    let memory = StoreConfig::Memory { max_size: MIB };
    bindings.stores.insert("fast".into(), memory);
    let labels = ["default", "fast"].map(String::from);
    let stores = bindings.open([&labels[..], &labels[..1]].into_iter(), &connections).unwrap();
    assert_eq!(stores.iter().map(HashMap::len).collect::<Vec<_>>(), [2, 1]);
    assert!(dir.path().join("state").join(SQLITE_FILE).is_file());
    // Components share the entries.
    stores[0]["default"].set("k".into(), b"v".to_vec()).await.unwrap();
    assert_eq!(stores[1]["default"].get("k".into()).await, Ok(Some(b"v".to_vec())));
    let unbound = ["cache".to_owned()];
    let error = bindings.open([&unbound[..]].into_iter(), &connections).unwrap_err();
    assert!(error.to_string().contains("write [key_value_store.cache]"), "{error}");
    // A file in a folder that cannot exist.
    std::fs::write(dir.path().join("text"), "").unwrap();
    bindings.folder = dir.path().join("text");
    let error = bindings.open([&labels[..]].into_iter(), &connections).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("[key_value_store.default]") && error.contains("path"), "{error}");
}

/// As in Spin, labels may share a file, however its path is written: each has its own entries.
#[tokio::test]
async fn labels_share_a_file_and_have_their_own_entries() {
    let dir = tempfile::tempdir().unwrap();
    let connections = RedisConnections::new(
        1,
        crate::http::client_tls::client().unwrap(),
        BlockedNetworks::default(),
    );
    let folder = dir.path().to_owned();
    std::os::unix::fs::symlink(&folder, dir.path().join("link")).unwrap();
    let file = |path: &str, max_size| StoreConfig::Sqlite { path: Some(path.into()), max_size };
    let stores =
        BTreeMap::from([("a".into(), file("kv.db", MIB)), ("b".into(), file("link/kv.db", MIB))]);
    let mut bindings = Bindings { folder, stores };
    let labels = ["a", "b"].map(String::from);
    let open = |bindings: &Bindings| bindings.open([&labels[..]].into_iter(), &connections);
    let opened = open(&bindings).unwrap().remove(0);
    for label in &labels {
        opened[label].set("k".into(), label.clone().into_bytes()).await.unwrap();
    }
    assert_eq!(opened["a"].get("k".into()).await, Ok(Some(b"a".to_vec())));
    // A file has one maximum size.
    bindings.stores.insert("b".into(), file("link/kv.db", 2 * MIB));
    let error = open(&bindings).unwrap_err().to_string();
    assert!(error.starts_with("[key_value_store.b]: max_size: "), "{error}");
    assert!(error.contains("is also the file of `a`, with a max_size of 1048576 bytes"), "{error}");
}

/// An operation on a store.
#[derive(Clone, Debug)]
enum ModelStep {
    Set(String, Vec<u8>),
    Delete(String),
    Swap(String, Option<Vec<u8>>, Vec<u8>),
    Increment(String, i64),
}

fn step() -> impl Strategy<Value = ModelStep> {
    let key = || "[a-c]{0,1}|ä";
    let value = || proptest::collection::vec(0_u8..3, 0..10);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| ModelStep::Set(key, value)),
        key().prop_map(ModelStep::Delete),
        (key(), proptest::option::of(value()), value())
            .prop_map(|(key, seen, value)| ModelStep::Swap(key, seen, value)),
        (key(), any::<i64>()).prop_map(|(key, delta)| ModelStep::Increment(key, delta)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Memory and file return the same results, and contain the same entries in the end.
    #[test]
    fn storages_behave_the_same(steps in proptest::collection::vec(step(), 0..40)) {
        Runtime::new().unwrap().block_on(async {
            let (_dir, [memory, file]) = stores(MIB);
            for step in steps {
                match step {
                    ModelStep::Set(key, value) => {
                        let expected = memory.set(key.clone(), value.clone()).await;
                        prop_assert_eq!(file.set(key, value).await, expected);
                    }
                    ModelStep::Delete(key) => {
                        let expected = memory.delete_many(vec![key.clone()]).await;
                        prop_assert_eq!(file.delete_many(vec![key]).await, expected);
                    }
                    ModelStep::Swap(key, seen, value) => {
                        let expected = memory.swap(key.clone(), seen.clone(), value.clone()).await;
                        prop_assert_eq!(file.swap(key, seen, value).await, expected);
                    }
                    ModelStep::Increment(key, delta) => {
                        let expected = memory.increment(key.clone(), delta).await;
                        prop_assert_eq!(file.increment(key, delta).await, expected);
                    }
                }
            }
            let keys = memory.all_keys().await.unwrap();
            prop_assert_eq!(file.all_keys().await, Ok(keys.clone()));
            prop_assert_eq!(file.get_many(keys.clone()).await, memory.get_many(keys).await);
            Ok(())
        })?;
    }
}
