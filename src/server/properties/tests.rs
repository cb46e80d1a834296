use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_valid_client_is_served_whatever_the_pieces_and_hand_overs(data in vec(any::<u8>(), 0..400)) {
        super::valid_client(&data);
    }

    #[test]
    fn a_client_that_sends_anything_leaves_nothing_behind(data in vec(any::<u8>(), 0..400)) {
        super::wild_client(&data);
    }

    #[test]
    fn a_relayed_answer_reaches_the_client_and_ends_once(data in vec(any::<u8>(), 0..200)) {
        super::relayed_answer(&data);
    }
}

/// A request without FCGI_KEEP_CONN is refused while another waits, and the connection is handed over with that one.
#[test]
fn a_connection_that_is_to_be_closed_is_closed_after_a_hand_over_too() {
    super::valid_client(include_bytes!(
        "../../../tests/fuzz/seeds/valid_client/refused-without-keep-and-handed-over"
    ));
}
