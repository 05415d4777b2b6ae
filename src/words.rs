//! Words of messages: lists and plurals.

/// The largest number of things that one message names.
const MOST_NAMED: usize = 8;

/// The first of many things, and the number of the others.
pub fn list(mut things: Vec<String>) -> String {
    let more = things.len().saturating_sub(MOST_NAMED);
    things.truncate(MOST_NAMED);
    if more > 0 {
        things.push(format!("and {more} more"));
    }
    things.join("; ")
}

/// A noun for so many things.
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

/// The verb for so many things.
pub fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_end() {
        let things = |count| (0..count).map(|number: u32| number.to_string()).collect();
        assert_eq!(list(things(0)), "");
        assert_eq!(list(things(8)), "0; 1; 2; 3; 4; 5; 6; 7");
        assert_eq!(list(things(1000)), "0; 1; 2; 3; 4; 5; 6; 7; and 992 more");
    }

    #[test]
    fn one_drive_is_and_two_drives_are() {
        assert_eq!((plural(1, "drive"), are(1)), ("drive".to_owned(), "is"));
        assert_eq!((plural(2, "drive"), are(2)), ("drives".to_owned(), "are"));
        assert_eq!((plural(0, "drive"), are(0)), ("drives".to_owned(), "are"));
    }
}
