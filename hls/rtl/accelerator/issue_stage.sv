// A job on its way to the scoreboard: its rows become those of all images.
module edgemoe_issue_stage
  import edgemoe_job_pkg::*;
#(
    parameter int TOKEN_BITS = 16,
    parameter int BATCH_BITS = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: nothing is on its way
    input  logic [BATCH_BITS-1:0] batch,

    input  logic in_valid,
    output logic in_ready,
    input  job_t in_job,

    output logic out_valid,
    input  logic out_ready,
    output job_t out_job,
    output logic [TOKEN_BITS-1:0] out_rows
);

  assign in_ready = !out_valid || out_ready;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) out_valid <= 1'b0;
    else if (in_ready) out_valid <= in_valid;

  always_ff @(posedge ap_clk)
    if (in_ready) begin
      out_job  <= in_job;
      out_rows <= in_job.rows[TOKEN_BITS-1:0] * TOKEN_BITS'(batch);
    end

endmodule
