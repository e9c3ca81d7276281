//! Python's sort: stable, by `<` alone, with the same result where keys have no order.

use std::cmp::Ordering;

use minijinja::{Error, Value};

use super::values::{MAX_DEPTH, type_error};
use super::{budget, comparisons};

/// Shorter lists are sorted by insertion, as in Python.
const SHORT: usize = 64;

/// Which key comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// Sorts by `key`.
///
/// # Errors
/// `InvalidTemplate` for keys that Python cannot compare, and for NaN in lists that Python would not sort by insertion.
pub(super) fn sort<T>(items: &mut Vec<T>, direction: Direction, key: fn(&T) -> &Value) -> Result<(), Error> {
    let reverse = direction == Direction::Descending;
    budget::make(items.len())?;
    // Reversing before and after keeps equal items in order.
    if reverse {
        items.reverse();
    }
    let order = match items.len() {
        0..SHORT => by_insertion(items.len(), |a, b| {
            Ok(comparisons::order("<", key(&items[a]), key(&items[b]), MAX_DEPTH)? == Some(Ordering::Less))
        })?,
        _ => by_merging(items.len(), |a, b| {
            let order = comparisons::order("<", key(&items[a]), key(&items[b]), MAX_DEPTH)?;
            let none = || type_error(format!("expected comparable keys, found nan among {}", items.len()));
            Ok(order.ok_or_else(none)? == Ordering::Less)
        })?,
    };
    let mut taken: Vec<Option<T>> = std::mem::take(items).into_iter().map(Some).collect();
    items.extend(order.into_iter().filter_map(|at| taken[at].take()));
    if reverse {
        items.reverse();
    }
    Ok(())
}

/// Takes the run at the start, reversed if it descends, then inserts the items one by one.
fn by_insertion(
    len: usize,
    mut less: impl FnMut(usize, usize) -> Result<bool, Error>,
) -> Result<Vec<usize>, Error> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut run = 1;
    if len > 1 {
        let descends = less(1, 0)?;
        run = 2;
        while run < len && less(run, run - 1)? == descends {
            run += 1;
        }
        if descends {
            order[..run].reverse();
        }
    }
    for at in run..len {
        let (mut from, mut to) = (0, at);
        while from < to {
            let middle = from + (to - from) / 2;
            if less(order[at], order[middle])? { to = middle } else { from = middle + 1 }
        }
        order[from..=at].rotate_right(1);
    }
    Ok(order)
}

fn by_merging(
    len: usize,
    mut less: impl FnMut(usize, usize) -> Result<bool, Error>,
) -> Result<Vec<usize>, Error> {
    let mut order: Vec<usize> = (0..len).collect();
    let mut merged = Vec::with_capacity(len);
    let mut width = 1;
    while width < len {
        merged.clear();
        for part in order.chunks(2 * width) {
            let (mut left, mut right) = part.split_at(width.min(part.len()));
            while let ([first, others @ ..], [second, rest @ ..]) = (left, right) {
                if less(*second, *first)? {
                    merged.push(*second);
                    right = rest;
                } else {
                    merged.push(*first);
                    left = others;
                }
            }
            merged.extend_from_slice(left);
            merged.extend_from_slice(right);
        }
        std::mem::swap(&mut order, &mut merged);
        width *= 2;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(mut items: Vec<(Value, usize)>, direction: Direction) -> Result<Vec<(Value, usize)>, Error> {
        sort(&mut items, direction, |(key, _)| key)?;
        Ok(items)
    }

    proptest! {
        #[test]
        fn sorts_stably(keys in prop::collection::vec(0_i64..20, 0..200), reverse: bool) {
            let items: Vec<(Value, usize)> = keys.iter().zip(0..).map(|(&key, at)| (Value::from(key), at)).collect();
            let direction = if reverse { Direction::Descending } else { Direction::Ascending };
            let found: Vec<usize> = sorted(items, direction).unwrap().into_iter().map(|(_, at)| at).collect();
            let mut expected: Vec<usize> = (0..keys.len()).collect();
            expected.sort_by(|&a, &b| if reverse { keys[b].cmp(&keys[a]) } else { keys[a].cmp(&keys[b]) });
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn keys_without_an_order_are_sorted_as_in_python_or_refused() {
        let of = |keys: &[f64]| keys.iter().map(|&key| (Value::from(key), 0)).collect::<Vec<_>>();
        let found = sorted(of(&[3.0, 1.0, f64::NAN, 2.0]), Direction::Ascending).unwrap();
        let found: Vec<String> = found.iter().map(|(key, _)| key.to_string()).collect();
        assert_eq!(found, ["1.0", "2.0", "3.0", "NaN"]);
        let many: Vec<f64> =
            (0..200).map(|at| if at % 3 == 0 { f64::NAN } else { f64::from(at * 79 % 101) }).collect();
        assert!(sorted(of(&many), Direction::Ascending).unwrap_err().to_string().contains("nan"));
        let mixed: Vec<_> =
            (0..100).map(|at| if at % 3 == 0 { Value::from("a") } else { Value::from(at) }).collect();
        assert!(sorted(mixed.into_iter().map(|key| (key, 0)).collect(), Direction::Descending).is_err());
    }
}
