// The job table on chip: loaded at the start of a call, then offered twice, to the weight fetcher and to the scoreboard.
//
// The table is the first section of the weight image, records of 64 bytes side by side; the record of engine OUTPUT is its last. To
// load it, `fetch_job` first offers jobs of this module's own: engine OUTPUT, which has no parameters otherwise, with
// the beats that are wanted. One asks for the first record, whose `first` is where the table ends; the other for the rest. Their
// beats come back as `beat`. Then the table's records follow, on both streams, as they come in.
//
// A table that holds a record of another version, has more than JOBS records, or does not end with engine OUTPUT stops the
// loading and sets a flag until the next `restart`: nothing more is offered, and its beats are still taken.
module edgemoe_job_memory
  import edgemoe_job_pkg::*;
#(
    parameter int BEAT_BITS = 512,
    parameter int JOBS = 256,
    parameter int LATENCY = 2,
    parameter STYLE = "block"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: the table is read again

    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic fetch_valid,  // to the weight fetcher
    input  logic fetch_ready,
    output job_t fetch_job,
    output logic issue_valid,  // to the scoreboard
    input  logic issue_ready,
    output job_t issue_job,

    output logic all_issued,  // the job of engine OUTPUT has been taken from `issue`
    output logic bad_version,
    output logic overflow  // too many records, or no end
);
endmodule
