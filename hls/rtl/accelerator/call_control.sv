// A call of the accelerator from `ap_start` to `ap_done`: refused, without images, or run; and what is said of it afterwards.
//
// `status`: 0 done, 1 more images than there is room for, 2 no such task, 3 the job table cannot be read, 4 memory refused an access.
// Calls that are refused and calls without images touch no memory.
module edgemoe_call_control #(
    parameter int MAX_BATCH = 1,
    parameter int TASKS = 1,
    localparam int BATCH_BITS = $clog2(MAX_BATCH + 1)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ap_start,
    output logic ap_done,
    output logic ap_idle,
    input  logic [31:0] batch,
    input  logic [31:0] task_number,

    output logic call_valid,
    input  logic call_ready,
    input  logic call_done,
    output logic [BATCH_BITS-1:0] call_batch,
    output logic [15:0] call_task,
    input  logic bad_table,
    input  logic failed,

    output logic [31:0] status,
    output logic [63:0] cycles
);

  typedef enum logic [1:0] {
    IDLE,
    CALL,
    RUN,
    DONE
  } state_t;

  state_t state;
  logic batch_fits;
  logic task_known;

  assign batch_fits = batch <= 32'(MAX_BATCH);
  assign task_known = task_number < 32'(TASKS);
  assign ap_idle = state == IDLE;
  assign ap_done = state == DONE;
  assign call_valid = state == CALL;
  assign call_batch = batch[BATCH_BITS-1:0];
  assign call_task = task_number[15:0];

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= IDLE;
    end else
      case (state)
        IDLE: if (ap_start) state <= batch_fits && task_known && batch != '0 ? CALL : DONE;
        CALL: if (call_ready) state <= RUN;
        RUN: if (call_done) state <= DONE;
        default: state <= IDLE;
      endcase

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      status <= '0;
      cycles <= '0;
    end else if (state == IDLE) begin
      if (ap_start) begin
        status <= !batch_fits ? 32'd1 : !task_known ? 32'd2 : 32'd0;
        cycles <= '0;
      end
    end else begin
      if (state == RUN && call_done) status <= bad_table ? 32'd3 : failed ? 32'd4 : 32'd0;
      if (state != DONE) cycles <= cycles + 1'b1;
    end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk) if (ap_rst_n && call_done) assert (state == RUN);
`endif

endmodule
