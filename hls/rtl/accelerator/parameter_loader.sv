// Hands the beats of the weight image, job after job, to the engine whose parameters they are.
//
// The job of a load is taken first, then its beats, in order: the header and a layer's settings stay here; everything else goes to
// the linear, norm or router core, to the engine of positions, or, for jobs of engine OUTPUT, to the job memory. Beats
// are on `beat` for all of them, behind a register; `*_beat_valid` and `*_beat_ready` say whose they are.
//
// Settings: two layers' are held, even and odd ones. An engine that needs some shows its job while that is offered
// (`*_valid`, `*_job`); one or more cycles later `*_ready` says that the values are those of this job, until `*_taken`.
// A job of no layer is ready with any values.
module edgemoe_parameter_loader
  import edgemoe_job_pkg::*;
#(
    parameter int BEAT_BITS = 512,
    parameter int SETTINGS = 53,  // of a layer, at most
    parameter int GATE_SHIFT = 2,  // place of `gate_shift` among them
    parameter int MULTIPLIER_BITS = 16,
    parameter int HIDDEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int BLOCK_BITS = 8,
    parameter int GROUP_BITS = 3,
    parameter int ROUTER_LANES = 4,
    parameter int RECORD_BEATS = 2,  // of the largest gate
    localparam int RECORD_BEAT_BITS = $clog2(RECORD_BEATS + 1)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: no settings are known

    input  logic load_valid,  // from the weight streamer
    output logic load_ready,
    input  job_t load_job,
    input  logic in_valid,
    output logic in_ready,
    input  logic [BEAT_BITS-1:0] in_beat,
    input  logic in_last,

    output logic [BEAT_BITS-1:0] beat,  // for all engines
    output logic linear_beat_valid,
    input  logic linear_beat_ready,
    output logic norm_beat_valid,
    input  logic norm_beat_ready,
    output logic router_beat_valid,
    input  logic router_beat_ready,
    output logic positions_beat_valid,
    input  logic positions_beat_ready,
    output logic table_beat_valid,
    input  logic table_beat_ready,

    output logic linear_load_valid,
    input  logic linear_load_ready,
    output logic norm_load_valid,
    input  logic norm_load_ready,
    output logic router_load_valid,
    input  logic router_load_ready,
    output logic [WORD_BITS-1:0] load_words,  // of all three
    output logic [BLOCK_BITS-1:0] load_blocks,  // of the linear engine
    output logic [GROUP_BITS-1:0] load_groups,  // of the router
    output logic [RECORD_BEAT_BITS-1:0] load_record_beats,  // of the router

    output logic [63:0] epsilon,  // the header's

    input  logic norm_valid,
    input  job_t norm_job,
    input  logic norm_taken,
    output logic norm_ready,
    output logic [5:0] norm_shift,
    output logic [5:0] norm_gate_shift,

    input  logic attention_valid,
    input  job_t attention_job,
    input  logic attention_taken,
    output logic attention_ready,
    output logic [5:0] attention_score_shift,
    output logic signed [7:0] attention_shift,

    input  logic linear_valid,
    input  job_t linear_job,
    input  logic linear_taken,
    output logic linear_ready,
    output logic [MULTIPLIER_BITS-1:0] linear_multiplier,
    output logic [5:0] linear_shift,
    output logic signed [HIDDEN_BITS-1:0] linear_zero
);
endmodule
