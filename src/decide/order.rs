//! In which order policies are swept: rows that hold a foreign key before those they point to.

use std::collections::{HashMap, HashSet};

/// `policies` in their order, except that each comes after those that point to it. `keys` are
/// (from, to). Where they go round in a circle, the order stays as it was.
pub fn children_first(policies: &[i64], keys: &[(i64, i64)]) -> Vec<i64> {
    let mut children: HashMap<i64, Vec<i64>> = HashMap::new();
    for &(from, to) in keys {
        children.entry(to).or_default().push(from);
    }
    for list in children.values_mut() {
        list.sort_by_key(|child| policies.iter().position(|policy| policy == child));
    }
    let mut order = Vec::with_capacity(policies.len());
    let mut seen = HashSet::new();
    // Each is entered once, and left when all that point to it are in their places.
    for &policy in policies {
        let mut path = vec![(policy, 0)];
        if !seen.insert(policy) {
            continue;
        }
        while let Some((current, next)) = path.last_mut() {
            let pointing = children.get(current).map_or(&[][..], Vec::as_slice);
            match pointing.get(*next) {
                Some(&child) => {
                    *next += 1;
                    if policies.contains(&child) && seen.insert(child) {
                        path.push((child, 0));
                    }
                }
                None => {
                    order.push(*current);
                    path.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_keys_the_order_stays() {
        assert_eq!(children_first(&[3, 1, 2], &[]), [3, 1, 2]);
    }

    #[test]
    fn who_points_comes_first() {
        assert_eq!(children_first(&[1, 2, 3, 4], &[(3, 1), (4, 3), (2, 9)]), [4, 3, 1, 2]);
    }

    #[test]
    fn a_circle_harms_nothing() {
        assert_eq!(children_first(&[1, 2, 3], &[(1, 2), (2, 1), (2, 2)]), [2, 1, 3]);
    }

    proptest! {
        #[test]
        fn each_comes_once_and_after_its_children_where_that_can_be(
            keys in proptest::collection::vec((0i64..12, 0i64..12), 0..30)
        ) {
            let policies: Vec<_> = (0..12).collect();
            // Keys that only lead upwards go round in no circle.
            let keys: Vec<_> = keys.into_iter().filter(|(from, to)| from > to).collect();
            let order = children_first(&policies, &keys);
            let place = |policy| order.iter().position(|other| *other == policy);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, policies);
            for (from, to) in keys {
                prop_assert!(place(from) < place(to));
            }
        }
    }
}
