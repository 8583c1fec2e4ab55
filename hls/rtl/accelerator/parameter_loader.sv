// Hands the beats of the weight image, job after job, to the engine whose parameters they are.
//
// The job of a load is taken first, then its beats, in order: the header and a layer's settings stay here; everything else goes to
// the linear, norm or router core, to the engine of positions, or, for jobs of engine OUTPUT, to the job memory. Beats
// are on `beat` for all of them, behind a register; `*_beat_valid` and `*_beat_ready` say whose they are.
//
// Settings: see `edgemoe_layer_settings`.
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
    localparam int RECORD_BITS = 64,  // of an expert's record
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

  typedef enum logic [1:0] {
    TAKE,
    SETTLE,  // beats of settings, or the header
    HAND_ON,  // the load to its core
    PASS
  } state_t;

  state_t state;
  job_t now;
  wire unused_job = &{1'b0, now};
  logic [15:0] settings_left;  // beats
  logic beat_valid;
  logic beat_ready;
  logic beat_last;
  logic takes;
  logic settles;
  logic settings_ready;
  logic of_linear;  // whose job `now` is
  logic of_norm;
  logic of_router;
  logic of_positions;
  logic of_table;
  logic load_taken;

  // A table that was refused may have left beats in it.
  edgemoe_register_slice #(.WIDTH(BEAT_BITS + 1)) slice (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n && !restart),
      .in_data({in_last, in_beat}),
      .in_valid(in_valid),
      .in_ready(in_ready),
      .out_data({beat_last, beat}),
      .out_valid(beat_valid),
      .out_ready(beat_ready)
  );

  assign load_ready = state == TAKE;
  assign linear_load_valid = state == HAND_ON && of_linear;
  assign norm_load_valid = state == HAND_ON && of_norm;
  assign router_load_valid = state == HAND_ON && of_router;
  assign load_taken = (linear_load_valid && linear_load_ready) || (norm_load_valid && norm_load_ready)
      || (router_load_valid && router_load_ready);

  assign linear_beat_valid = state == PASS && beat_valid && of_linear;
  assign norm_beat_valid = state == PASS && beat_valid && of_norm;
  assign router_beat_valid = state == PASS && beat_valid && of_router;
  assign positions_beat_valid = state == PASS && beat_valid && of_positions;
  assign table_beat_valid = state == PASS && beat_valid && of_table;
  assign takes = (linear_beat_valid && linear_beat_ready) || (norm_beat_valid && norm_beat_ready)
      || (router_beat_valid && router_beat_ready) || (positions_beat_valid && positions_beat_ready)
      || (table_beat_valid && table_beat_ready);
  assign settles = state == SETTLE && beat_valid && settings_left != '0 && settings_ready;
  assign beat_ready = takes || settles;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      state <= TAKE;
    end else begin
      case (state)
        TAKE: if (load_valid) state <= SETTLE;
        SETTLE:
        if (settles && beat_last) state <= TAKE;
        else if (settings_left == '0) state <= of_linear || of_norm || of_router ? HAND_ON : PASS;
        HAND_ON: if (load_taken) state <= PASS;
        default: if (takes && beat_last) state <= TAKE;
      endcase
    end

  always_ff @(posedge ap_clk)
    if (state == TAKE) begin
      now <= load_job;
      of_linear <= load_job.engine == LINEAR;
      of_norm <= load_job.engine == NORM;
      of_router <= load_job.engine == ROUTER;
      of_positions <= load_job.engine == POSITIONS;
      of_table <= load_job.engine == OUTPUT;
      settings_left <= load_job.settings_beats;
    end else if (settles) begin
      settings_left <= settings_left - 1'b1;
    end

  always_ff @(posedge ap_clk) if (settles && of_positions) epsilon <= beat[63:0];

  // ---- What a core must know of its parameters.

  function automatic logic [RECORD_BEAT_BITS-1:0] record_beats(input logic [GROUP_BITS-1:0] groups);
    record_beats = '0;
    for (int number = 0; number < 2 ** GROUP_BITS; number++)
      if (groups == GROUP_BITS'(number))
        record_beats = RECORD_BEAT_BITS'((number * ROUTER_LANES * RECORD_BITS + BEAT_BITS - 1) / BEAT_BITS);
  endfunction

  assign load_words = WORD_BITS'(now.words);
  assign load_blocks = BLOCK_BITS'(now.blocks);
  assign load_groups = GROUP_BITS'(now.blocks);
  assign load_record_beats = record_beats(GROUP_BITS'(now.blocks));

  // ---- Settings.

  edgemoe_layer_settings #(
      .BEAT_BITS(BEAT_BITS),
      .SETTINGS(SETTINGS),
      .GATE_SHIFT(GATE_SHIFT),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .HIDDEN_BITS(HIDDEN_BITS)
  ) settings (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .beat_valid(settles && of_norm),
      .beat_ready(settings_ready),
      .beat(beat),
      .beat_layer(now.layer),
      .beat_first(settings_left == now.settings_beats),
      .beat_last(settings_left == 16'd1),
      .norm_valid(norm_valid),
      .norm_job(norm_job),
      .norm_taken(norm_taken),
      .norm_ready(norm_ready),
      .norm_shift(norm_shift),
      .norm_gate_shift(norm_gate_shift),
      .attention_valid(attention_valid),
      .attention_job(attention_job),
      .attention_taken(attention_taken),
      .attention_ready(attention_ready),
      .attention_score_shift(attention_score_shift),
      .attention_shift(attention_shift),
      .linear_valid(linear_valid),
      .linear_job(linear_job),
      .linear_taken(linear_taken),
      .linear_ready(linear_ready),
      .linear_multiplier(linear_multiplier),
      .linear_shift(linear_shift),
      .linear_zero(linear_zero)
  );

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n && !restart) begin
      if (load_valid && load_ready) begin
        assume (load_job.beats != '0 || load_job.settings_beats != '0);
        assume (load_job.engine inside {POSITIONS, LINEAR, NORM, ROUTER, OUTPUT});
        assume (load_job.settings_beats == '0 || load_job.engine inside {POSITIONS, NORM});
      end
      // No beat comes before its job.
      if (beat_valid) assert (state != TAKE);
    end
`endif

endmodule
