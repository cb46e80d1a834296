//! Times as the text and html pages have them: `24/Nov/2026:21:32:29 +0000`.

/// `seconds` since 1970 in the local time that is `offset` seconds ahead of UTC.
pub(super) fn local(seconds: i64, offset: i64) -> String {
    let local = seconds + offset;
    let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let sign = if offset < 0 { '-' } else { '+' };
    let ahead = offset.abs() / 60;
    format!(
        "{day:02}/{}/{year:04}:{hour:02}:{minute:02}:{second:02} {sign}{:02}{:02}",
        MONTHS[month],
        ahead / 60,
        ahead % 60
    )
}

/// Year, month (from 0) and day of a day since 1970, in a calendar of 400-year cycles whose years begin in March.
fn date(days: i64) -> (i64, usize, i64) {
    let days = days + DAYS_TO_1970;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 2, 0)
    } else {
        (month - 10, 1)
    };
    let month = usize::try_from(month).unwrap_or(0);
    (cycle * 400 + year + carry, month, day_of_month)
}

const DAY: i64 = 86_400;
/// Days of 400 years, and from 1 March of the year 0 to 1970.
const CYCLE: i64 = 146_097;
const DAYS_TO_1970: i64 = 719_468;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_strftime_writes_them() {
        assert_eq!(local(1_795_555_949, 0), "24/Nov/2026:21:32:29 +0000");
        assert_eq!(local(951_782_399, 0), "28/Feb/2000:23:59:59 +0000");
        assert_eq!(local(951_782_400, 0), "29/Feb/2000:00:00:00 +0000");
        assert_eq!(local(4_107_542_400, 0), "01/Mar/2100:00:00:00 +0000");
        assert_eq!(local(0, -12_600), "31/Dec/1969:20:30:00 -0330");
        assert_eq!(local(0, 20_700), "01/Jan/1970:05:45:00 +0545");
    }
}
