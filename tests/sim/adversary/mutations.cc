#include "sim/adversary/mutations.h"

namespace grenier::sim {

namespace {

constexpr rule_broken table[] = {
    {"quorum_of_one", "2, 5b.1", "one replica is enough for a write or a read"},
    {"retry_without_asking", "5b.1", "a refused write is tried again above, whatever became of the first attempt"},
    {"ignore_promises", "5b.1", "a plain write is taken below a promise"},
    {"no_write_back", "5b.2", "a read answers the newest that it saw, without writing it back"},
    {"judge_unestablished", "5b.3", "a compare-and-swap judges a value that stands on no quorum"},
    {"ignore_order", "5b.4", "a replica takes an accept that is older than what it holds"},
    {"tombstone_early", "5", "a deletion leaves no tombstone"},
    {"newcomer_votes", "5b.5", "who has not merged a partition counts in its quorums"},
    {"unsynced_is_shown", "5b.6", "rows are answered for before they are synced"},
    {"list_unsettled", "5b.7", "a key on which replicas differ is shown without asking"},
    {"list_hidden_unasked", "5b.7", "a key is left out on the word of one replica's deletion"},
    {"list_overrun", "5b.7", "a page goes on beyond the end of a replica's answer"},
    {"fence", "5b.9", "a request that was judged by an old row of its bucket is taken"},
    {"publish_unawaited", "5b.9", "a change of a bucket is answered before its replicas know it"},
    {"deleted_open", "5b.9", "DeleteBucket looks whether the bucket is empty without closing it"},
    {"name_just_written", "5b.9", "a bucket's name is written, not swapped"},
    {"withdrawn_at_once", "5b.10", "a replaced version's references go as soon as one replica holds something newer"},
    {"failed_put_withdraws", "5b.10", "a PUT without an answer withdraws its references"},
    {"parts_forgotten", "5b.10", "a completed upload's parts are let go with their rows"},
    {"references_unawaited", "5b.11", "a block is acknowledged before a quorum has its reference"},
    {"copy_unreferenced", "5b.11", "COPY writes its row without references to the blocks"},
    {"have_unverified", "5b.11", "a home says that it has a block without reading it"},
    {"read_unproved", "2", "a block is given out without comparing it with its name"},
    {"one_zone", "2", "a block is acknowledged when one zone has it"},
    {"freed_unasked", "5b.12", "a block without a reference here is freed, whatever the other replicas know"},
    {"freed_unchecked", "5b.11", "a block is freed without looking once more under its lock"},
    {"guest_let_go", "5b.12", "a block in the wrong place goes before its right places have it"},
    {"both_layouts_win", "5b.13", "two changes of the layout at once both win"},
    {"read_wrong_layout", "5b.13", "while rows move, reads ask the new version alone"},
    {"write_old_layout", "5b.13", "while rows move, writes count in the old version alone"},
    {"old_layout_dropped", "5b.13", "a version ends though its replicas do not know of it"},
    {"either_goes_on", "5b.15", "of two homes, either goes on alone"},
    {"no_anti_entropy", "5", "replicas do not compare what they hold"},
    {"complete_unconditionally", "2", "a multipart upload is completed whatever its condition says"},
    {"uncounted_removals", "3", "a deletion is not counted"},
};

}  // namespace

std::span<const rule_broken> all_mutations() { return table; }

}  // namespace grenier::sim
