// Scalar settings of two layers, an even and an odd one, and the values that a job needs of them.
//
// Settings are 32-bit numbers side by side in the beats of the weight image; each beat is put down a number a cycle. An engine
// shows its job: one or more cycles later `*_ready` says that the values are those of that job. They stay until `*_taken`, as long as
// the job is shown. A layer that is not here, or no longer, is never ready. A job of no layer is ready with any values.
module edgemoe_layer_settings
  import edgemoe_job_pkg::*;
#(
    parameter int BEAT_BITS = 512,
    parameter int SETTINGS = 53,
    parameter int GATE_SHIFT = 2,
    parameter int MULTIPLIER_BITS = 16,
    parameter int HIDDEN_BITS = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,

    input  logic beat_valid,  // only while `beat_ready`
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,
    input  logic [15:0] beat_layer,
    input  logic beat_first,  // of the layer
    input  logic beat_last,

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

  localparam int STORED = 32;
  localparam int PER_BEAT = BEAT_BITS / STORED;
  localparam int LEFT_BITS = $clog2(PER_BEAT + 1);
  localparam int SETTING_BITS = SETTINGS > 1 ? $clog2(SETTINGS) : 1;
  localparam int DEPTH = 2 ** (SETTING_BITS + 1);
  localparam logic [15:0] NO_LAYER = '1;

  // ---- They come in.

  logic [BEAT_BITS-1:0] held;
  logic [LEFT_BITS-1:0] left;  // numbers of the beat
  logic held_last;
  logic place;
  logic [SETTING_BITS:0] setting;  // one bit more: what pads the last beat is not kept
  logic writes;
  logic [SETTING_BITS:0] write_address;
  logic [1:0] known;
  logic [15:0] layer_even;
  logic [15:0] layer_odd;

  assign beat_ready = left == '0;
  assign writes = left != '0 && setting < (SETTING_BITS + 1)'(SETTINGS);
  assign write_address = {place, setting[SETTING_BITS-1:0]};

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      left  <= '0;
      known <= '0;
    end else if (beat_valid) begin
      left <= LEFT_BITS'(PER_BEAT);
      known[beat_layer[0]] <= 1'b0;
    end else if (left != '0) begin
      left <= left - 1'b1;
      if (left == LEFT_BITS'(1) && held_last) known[place] <= 1'b1;
    end

  always_ff @(posedge ap_clk)
    if (beat_valid) begin
      held <= beat;
      held_last <= beat_last;
      place <= beat_layer[0];
      if (beat_first) setting <= '0;
      if (beat_layer[0]) layer_odd <= beat_layer;
      else layer_even <= beat_layer;
    end else if (left != '0) begin
      held <= held >> STORED;
      if (writes) setting <= setting + 1'b1;
    end

  // ---- Each engine has the numbers that it needs in memories of its own, and no wider.

  wire unused_jobs = &{1'b0, norm_job, attention_job, linear_job};

  function automatic logic is_known(input logic [15:0] layer);
    is_known = layer == NO_LAYER || (layer[0] ? known[1] && layer == layer_odd : known[0] && layer == layer_even);
  endfunction

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      norm_ready <= 1'b0;
      attention_ready <= 1'b0;
      linear_ready <= 1'b0;
    end else begin
      norm_ready <= norm_valid && !norm_taken && is_known(norm_job.layer);
      attention_ready <= attention_valid && !attention_taken && is_known(attention_job.layer);
      linear_ready <= linear_valid && !linear_taken && is_known(linear_job.layer);
    end

  edgemoe_memory #(.WIDTH(6), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) norm_shift_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[6-1:0]),
      .ce(1'b1),
      .read_address({norm_job.layer[0], norm_job.setting[SETTING_BITS-1:0]}),
      .read_data(norm_shift)
  );
  edgemoe_memory #(.WIDTH(6), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) norm_gate_shift_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[6-1:0]),
      .ce(1'b1),
      .read_address({norm_job.layer[0], SETTING_BITS'(GATE_SHIFT)}),
      .read_data(norm_gate_shift)
  );
  edgemoe_memory #(.WIDTH(6), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) attention_score_shift_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[6-1:0]),
      .ce(1'b1),
      .read_address({attention_job.layer[0], attention_job.setting[SETTING_BITS-1:0]}),
      .read_data(attention_score_shift)
  );
  edgemoe_memory #(.WIDTH(8), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) attention_shift_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[8-1:0]),
      .ce(1'b1),
      .read_address({attention_job.layer[0], attention_job.setting[SETTING_BITS-1:0] + SETTING_BITS'(1)}),
      .read_data(attention_shift)
  );
  edgemoe_memory #(.WIDTH(MULTIPLIER_BITS), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) linear_multiplier_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[MULTIPLIER_BITS-1:0]),
      .ce(1'b1),
      .read_address({linear_job.layer[0], linear_job.setting[SETTING_BITS-1:0]}),
      .read_data(linear_multiplier)
  );
  edgemoe_memory #(.WIDTH(6), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) linear_shift_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[6-1:0]),
      .ce(1'b1),
      .read_address({linear_job.layer[0], linear_job.setting[SETTING_BITS-1:0] + SETTING_BITS'(1)}),
      .read_data(linear_shift)
  );
  edgemoe_memory #(.WIDTH(HIDDEN_BITS), .DEPTH(DEPTH), .LATENCY(1), .STYLE("distributed")) linear_zero_memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(held[HIDDEN_BITS-1:0]),
      .ce(1'b1),
      .read_address({linear_job.layer[0], linear_job.setting[SETTING_BITS-1:0] + SETTING_BITS'(2)}),
      .read_data(linear_zero)
  );

`ifndef SYNTHESIS
  initial assert (GATE_SHIFT < SETTINGS && MULTIPLIER_BITS <= STORED && HIDDEN_BITS <= STORED);
  // From `ready` to `taken` nobody's values are written over.
  logic norm_held;
  logic attention_held;
  logic linear_held;
  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) {norm_held, attention_held, linear_held} <= '0;
    else begin
      norm_held <= (norm_held || (norm_valid && norm_ready)) && !norm_taken;
      attention_held <= (attention_held || (attention_valid && attention_ready)) && !attention_taken;
      linear_held <= (linear_held || (linear_valid && linear_ready)) && !linear_taken;
    end
  always_ff @(posedge ap_clk)
    if (ap_rst_n && !restart) begin
      if (beat_valid) assert (beat_ready);
      if (norm_held && beat_valid) assert (norm_job.layer == NO_LAYER || norm_job.layer[0] != beat_layer[0]);
      if (attention_held && beat_valid) assert (attention_job.layer == NO_LAYER || attention_job.layer[0] != beat_layer[0]);
      if (linear_held && beat_valid) assert (linear_job.layer == NO_LAYER || linear_job.layer[0] != beat_layer[0]);
    end
`endif

endmodule
