//! Finds the fewest of many that make a difference.

use anyhow::Result;

/// The fewest items of `all`, which together make a difference, that still make it. First by halves, as one item is the usual
/// culprit; where a difference takes several, one after the other is left out.
///
/// # Errors
/// What `differs` reports.
pub fn narrow<T: Clone>(all: &[T], mut differs: impl FnMut(&[T]) -> Result<bool>) -> Result<Vec<T>> {
    let mut culprits = all.to_vec();
    while culprits.len() > 1 {
        let (first, second) = culprits.split_at(culprits.len() / 2);
        // The second half is tried, too: a difference may take something of both.
        if differs(first)? {
            culprits = first.to_vec();
        } else if differs(second)? {
            culprits = second.to_vec();
        } else {
            return leave_out(culprits, differs);
        }
    }
    Ok(culprits)
}

fn leave_out<T: Clone>(mut culprits: Vec<T>, mut differs: impl FnMut(&[T]) -> Result<bool>) -> Result<Vec<T>> {
    let mut index = 0;
    while index < culprits.len() {
        let mut others = culprits.clone();
        others.remove(index);
        if differs(&others)? {
            culprits = others;
        } else {
            index += 1;
        }
    }
    Ok(culprits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 9];

    #[test]
    fn one_culprit_is_found_wherever_it_is() {
        for culprit in ALL {
            assert_eq!(narrow(&ALL, |tried| Ok(tried.contains(&culprit))).unwrap(), [culprit]);
        }
    }

    #[test]
    fn one_culprit_takes_at_most_two_tries_a_halving() {
        let mut tries = 0;
        narrow(&ALL, |tried| {
            tries += 1;
            Ok(tried.contains(&9))
        })
        .unwrap();
        assert!(tries <= 8, "{tries}");
    }

    #[test]
    fn two_that_differ_only_together_are_both_named() {
        assert_eq!(narrow(&ALL, |tried| Ok(tried.contains(&2) && tried.contains(&8))).unwrap(), [2, 8]);
    }

    #[test]
    fn of_two_culprits_one_is_named() {
        assert_eq!(narrow(&ALL, |tried| Ok(tried.contains(&7) || tried.contains(&3))).unwrap(), [3]);
    }

    #[test]
    fn an_error_ends_the_search() {
        assert!(narrow(&ALL, |_| anyhow::bail!("no build")).is_err());
    }
}
