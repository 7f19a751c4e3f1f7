use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SIZE: WindowSize = WindowSize { counts: 2, sums: 1 };

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn recent(records: u32) -> Window {
    Window::new(&WindowShape::Recent { records, age: HOUR }, SIZE)
}

fn decayed() -> Window {
    Window::new(&WindowShape::Decayed { half_life: HOUR }, SIZE)
}

/// Adds records of the first bin, with the value 2.
fn add_records(window: &mut Window, now: SystemTime, records: u32) {
    add_to_bin(window, now, 0, records);
}

fn add_to_bin(window: &mut Window, now: SystemTime, bin: usize, mut records: u32) {
    while records > 0 {
        let (admitted, part) = window.admit(now, records);
        part.counts[bin] += admitted;
        part.sums[0] += 2.0 * f64::from(admitted);
        records -= admitted;
    }
}

fn records(window: &Window, now: SystemTime) -> u64 {
    window.snapshot(now, &[]).records
}

#[test]
fn full_window_contains_the_last_records() {
    let mut window = recent(100);
    assert_eq!(records(&window, at(0)), 0);
    add_records(&mut window, at(0), 3);
    assert_eq!(window.snapshot(at(0), &[]).span, Some((at(0), at(0))));
    add_records(&mut window, at(1), 1_000);
    let WindowSnapshot { records, span, counts, weights, sums, .. } = window.snapshot(at(1), &[]);
    assert!((96..=100).contains(&records), "{records}");
    assert_eq!((span, counts), (Some((at(1), at(1))), vec![records, 0]));
    assert_eq!((weights[0], sums[0]), (records as f64, 2.0 * records as f64));
}

#[test]
fn expired_records_are_evicted() {
    let mut window = recent(1_000);
    for minute in 0..120 {
        add_records(&mut window, at(minute * 60), 1);
    }
    let now = at(120 * 60);
    let WindowSnapshot { records: count, span, .. } = window.snapshot(now, &[]);
    assert!((54..=60).contains(&count), "{count}");
    assert!(span.unwrap().0 >= now - HOUR);
    assert_eq!(records(&window, at(240 * 60)), 0);
    assert!(window.state.parts.len() <= SUB_WINDOWS as usize);
}

#[test]
fn weights_halve_in_each_half_life() {
    let mut window = decayed();
    add_records(&mut window, at(0), 800);
    for (hours, expected) in [(0_u64, 800.0), (1, 400.0), (3, 100.0)] {
        let snapshot = window.snapshot(at(hours * 3600), &[]);
        assert_eq!((snapshot.counts[0], snapshot.weights[0]), (800, expected));
        assert_eq!(snapshot.squares[0] * 800.0, expected * expected);
        assert_eq!(snapshot.sums[0], 2.0 * expected);
    }
    assert_eq!(records(&window, at(9 * 3600)), 0);
    for minute in 0..60 * 24 {
        add_records(&mut window, at(minute * 60), 1);
    }
    let snapshot = window.snapshot(at(24 * 3600), &[]);
    // A record a minute: the sum of 2^(-t/60) is about 60 / ln 2.
    assert!((snapshot.weights[0] / (60.0 / 2_f64.ln()) - 1.0).abs() < 0.05, "{snapshot:?}");
    assert!(window.state.parts.len() <= 64);
}

#[test]
fn records_are_counted_when_the_clock_is_set_back() {
    let mut window = recent(1_000);
    add_records(&mut window, at(10_000), 10);
    add_records(&mut window, at(0), 10);
    assert_eq!(records(&window, at(0)), 20);
    assert_eq!(window.snapshot(at(0), &[]).span, Some((at(0), at(0))));
    // And expire, as the others do.
    assert_eq!(records(&window, at(3_700)), 0);
}

#[test]
fn records_of_a_jump_into_the_future_expire_after_it() {
    let mut window = decayed();
    add_records(&mut window, at(1_000_000_000), 10);
    add_records(&mut window, at(0), 10);
    let weights = window.snapshot(at(3600), &[]).weights[0];
    assert_eq!((weights, records(&window, at(9 * 3600))), (10.0, 0));
}

#[test]
fn most_frequent_unseen_categories_are_named() {
    let mut window = recent(1_000);
    let (_, part) = window.admit(at(0), 1);
    for index in 0..1_000 {
        part.count_unseen(3, if index % 2 == 0 { "frequent" } else { "often\n" });
        part.count_unseen(3, &format!("rare {index} {}", "x".repeat(100)));
    }
    part.count_unseen(4, "frequent");
    let unseen = window.snapshot(at(0), &[]).unseen;
    assert_eq!(unseen.iter().filter(|(field, ..)| *field == 3).count(), MAX_UNSEEN);
    let count = |field, name: &str| {
        unseen.iter().find(|(f, n, _)| *f == field && n == name).map(|(.., count)| *count)
    };
    assert!(count(3, "frequent").unwrap() >= 500 && count(3, "often\n").unwrap() >= 500);
    assert_eq!(count(4, "frequent"), Some(1));
    assert!(unseen.iter().all(|(_, name, _)| name.chars().count() <= UNSEEN_NAME));
}

#[test]
fn state_survives_json_and_does_not_fit_another_size() {
    let mut window = recent(100);
    add_records(&mut window, at(0), 42);
    window.admit(at(1), 1).1.sums[0] = f64::INFINITY;
    window.admit(at(1), 1).1.count_unseen(0, "x");
    window.look(at(1));
    let text = serde_json::to_string(window.state()).unwrap();
    let read = || serde_json::from_str::<WindowState>(&text).unwrap();
    let mut other = recent(100);
    assert!(other.restore(read()));
    let (a, b) = (window.snapshot(at(1), &[]), other.snapshot(at(1), &[]));
    assert_eq!(
        (a.records, &a.counts, &a.unseen, a.span),
        (b.records, &b.counts, &b.unseen, b.span)
    );
    assert_eq!((a.sums[0], b.sums[0]), (f64::INFINITY, f64::INFINITY));
    assert_eq!(window.look(at(1)), other.look(at(1)));
    let mut wider =
        Window::new(&WindowShape::Decayed { half_life: HOUR }, WindowSize { counts: 3, sums: 1 });
    assert!(!wider.restore(read()) && records(&wider, at(1)) == 0);
}

#[test]
fn starts_keep_their_numbers_and_windows_without_looks_spend_none() {
    let mut window = recent(200);
    add_records(&mut window, at(0), 25);
    let starts = |looks: Vec<StartCounts>| -> Vec<(u64, u64)> {
        looks.into_iter().map(|look| (look.start, look.counts[0])).collect()
    };
    // Sub-windows of ten: 25, 15 and 5 records from the first, second and third on.
    assert_eq!(starts(window.look(at(0))), [(1, 25), (2, 15), (3, 5)]);
    add_records(&mut window, at(0), 1_000);
    let looks = starts(window.look(at(0)));
    assert_eq!(looks[0].0, 4, "{looks:?}");
    assert_eq!(starts(window.look(at(0))), looks);
}

#[test]
fn merged_starts_are_those_of_all_hosts_with_a_share_for_each() {
    let (mut a, mut b) = (recent(200), recent(200));
    add_records(&mut a, at(0), 10);
    a.look(at(0));
    add_records(&mut a, at(10), 10);
    add_to_bin(&mut b, at(5), 1, 10);
    for window in [&mut a, &mut b] {
        window.look(at(10));
    }
    let merged = |first: &Window, second: &Window| -> Vec<(u64, Vec<u64>)> {
        let looks = first.merged_look(at(10), &[second.state().clone()]);
        looks.into_iter().map(|look| (look.start, look.counts)).collect()
    };
    // The start of b at second 5 and its own of number 1; those of a are its first and second.
    let expected: [(u64, Vec<u64>); 3] = [(2, vec![20, 10]), (2, vec![10, 10]), (4, vec![10, 0])];
    assert_eq!(merged(&a, &b), expected);
    assert_eq!(merged(&b, &a), expected);
    // Once a has evicted records, its window lacks those from before its oldest.
    add_records(&mut a, at(20), 200);
    a.look(at(20));
    let looks = a.merged_look(at(20), &[b.state().clone()]);
    assert!(looks.iter().all(|look| look.counts[1] == 0), "{looks:?}");
    assert!(!looks.is_empty() && looks == b.merged_look(at(20), &[a.state().clone()]));
}

fn steps() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0_u64..2_000, 1_u32..300), 0..60)
}

proptest! {
    #[test]
    fn window_never_exceeds_its_maximum(records in 1_u32..500, steps in steps()) {
        let mut window = recent(records);
        let (mut now, mut added) = (0, 0);
        for (step, count) in steps {
            now += step;
            add_records(&mut window, at(now), count);
            added += u64::from(count);
            let snapshot = window.snapshot(at(now), &[]);
            prop_assert!(snapshot.records <= u64::from(records).max(1).min(added));
            prop_assert_eq!(snapshot.records, snapshot.counts[0]);
            prop_assert!(window.state.parts.len() <= SUB_WINDOWS as usize);
        }
    }

    /// Nodes count and look at any times; the report is computed by any of them.
    #[test]
    fn merged_report_does_not_depend_on_the_order_of_the_hosts(
        steps in prop::collection::vec(
            (0_u64..400, 1_u32..40, 0_usize..3, 0_usize..2, any::<bool>()),
            1..80,
        ),
        decay in any::<bool>(),
    ) {
        let mut nodes = [(); 3].map(|()| if decay { decayed() } else { recent(300) });
        let mut now = 0;
        for (step, count, node, bin, look) in steps {
            now += step;
            add_to_bin(&mut nodes[node], at(now), bin, count);
            nodes[node].admit(at(now), 1).1.sums[0] += 0.1 * f64::from(count);
            if look {
                nodes[node].look(at(now));
            }
        }
        let of = |order: [usize; 3]| {
            let [first, others @ ..] = order.map(|node| &nodes[node]);
            let others = others.map(|node| node.state().clone());
            let mut snapshot = first.snapshot(at(now), &others);
            snapshot.unseen.sort();
            (snapshot, first.merged_look(at(now), &others))
        };
        let expected = of([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let found = of(order);
            prop_assert_eq!(&found, &expected);
        }
    }

    /// Two nodes count every other record; one node counts all.
    #[test]
    fn merged_windows_equal_the_window_of_the_union(
        steps in prop::collection::vec((0_u64..50, 1_u32..30, any::<bool>(), 0_usize..2), 1..60),
        decay in any::<bool>(),
    ) {
        let new = || if decay { decayed() } else { recent(10_000) };
        let (mut nodes, mut all) = ([new(), new()], new());
        let mut now = 0;
        for (step, count, other, bin) in steps {
            now += step;
            for window in [&mut nodes[usize::from(other)], &mut all] {
                add_to_bin(window, at(now), bin, count);
            }
        }
        let [a, b] = &nodes;
        let merged = a.snapshot(at(now), &[b.state().clone()]);
        let union = all.snapshot(at(now), &[]);
        prop_assert_eq!((merged.records, &merged.counts, merged.span), (union.records, &union.counts, union.span));
        // A weight is that of the middle of a sub-window, which covers at most `half_life / 8`.
        for (merged, union) in merged.weights.iter().zip(&union.weights) {
            prop_assert!((merged - union).abs() <= 0.1 * union, "{merged} {union}");
        }
        if !decay {
            prop_assert_eq!(merged.sums, union.sums);
        }
    }
}
