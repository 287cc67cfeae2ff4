//! A bounded memory of things that come again.

const SETS: usize = 128; // a power of two
const WAYS: usize = 8;
const MOST_USES: u8 = 3;

/// Remembers at most 1024 things by their hash.
///
/// A thing is forgotten only for another of the same set, and what has been asked for is forgotten after what
/// has not: a flood of things that never come again pushes out its own kind alone. Asking and adding look at
/// the 8 places of one set, whatever the hashes are.
#[derive(Debug)]
pub struct Table<T> {
    sets: Vec<Set<T>>,
}

#[derive(Debug)]
struct Set<T> {
    hashes: [u64; WAYS],
    uses: [u8; WAYS],
    things: [Option<T>; WAYS],
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let sets =
            (0..SETS).map(|_| Set { hashes: [0; WAYS], uses: [0; WAYS], things: [const { None }; WAYS] });
        Table { sets: sets.collect() }
    }
}

impl<T> Table<T> {
    /// Return the thing of this hash for which `is` holds.
    #[inline]
    pub fn find(&mut self, hash: u64, is: impl Fn(&T) -> bool) -> Option<&T> {
        let set = &mut self.sets[hash as usize % SETS];
        for way in 0..WAYS {
            if set.hashes[way] == hash && set.things[way].as_ref().is_some_and(&is) {
                set.uses[way] = MOST_USES.min(set.uses[way] + 1);
                return set.things[way].as_ref();
            }
        }
        None
    }

    /// Add a thing that `find` does not find.
    pub fn add(&mut self, hash: u64, thing: T) {
        let set = &mut self.sets[hash as usize % SETS];
        let way = set.place();
        set.hashes[way] = hash;
        set.uses[way] = 0;
        set.things[way] = Some(thing);
    }

    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        let things = self.sets.iter().flat_map(|set| &set.things);
        things.filter(|thing| thing.is_some()).count()
    }
}

impl<T> Set<T> {
    /// A free place, or the one of a thing that is used least. It takes as many tries to forget what was used as
    /// it has been used since, `MOST_USES` at most.
    fn place(&mut self) -> usize {
        if let Some(free) = self.things.iter().position(Option::is_none) {
            return free;
        }
        loop {
            if let Some(unused) = self.uses.iter().position(|&uses| uses == 0) {
                return unused;
            }
            for uses in &mut self.uses {
                *uses -= 1; // none is 0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: usize = SETS * WAYS;

    #[test]
    fn things_are_found_by_hash_and_likeness() {
        let mut table = Table::default();
        table.add(5, "a");
        table.add(5, "b");
        assert_eq!(table.find(5, |&thing| thing == "b"), Some(&"b"));
        assert_eq!(table.find(5, |&thing| thing == "a"), Some(&"a"));
        assert_eq!(table.find(5, |&thing| thing == "c"), None);
        assert_eq!(table.find(6, |_| true), None);
    }

    #[test]
    fn no_more_than_the_capacity_is_remembered() {
        let mut table = Table::default();
        for thing in 0..10 * CAPACITY as u64 {
            table.add(thing, thing);
        }
        assert_eq!(table.remembered(), CAPACITY);
    }

    #[test]
    fn what_is_asked_for_outlives_a_flood_of_what_is_not() {
        let mut table = Table::default();
        for thing in 0..CAPACITY as u64 / 2 {
            table.add(thing, thing);
            assert_eq!(table.find(thing, |_| true), Some(&thing));
        }
        for thing in CAPACITY as u64..100 * CAPACITY as u64 {
            table.add(thing, thing);
        }
        for thing in 0..CAPACITY as u64 / 2 {
            assert_eq!(table.find(thing, |_| true), Some(&thing));
        }
    }

    #[test]
    fn what_was_asked_for_long_ago_makes_room() {
        let mut table = Table::default();
        for thing in 0..CAPACITY as u64 {
            table.add(thing, thing);
            for _ in 0..10 {
                table.find(thing, |_| true);
            }
        }
        for thing in CAPACITY as u64..2 * CAPACITY as u64 {
            table.add(thing, thing);
            assert_eq!(table.find(thing, |_| true), Some(&thing));
        }
    }
}
