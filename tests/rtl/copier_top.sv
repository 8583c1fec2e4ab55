// The small accelerator of `copier.sv` with its registers.
module copier_top (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [6:0] s_axi_control_AWADDR,
    input  logic s_axi_control_AWVALID,
    output logic s_axi_control_AWREADY,
    input  logic [31:0] s_axi_control_WDATA,
    input  logic [3:0] s_axi_control_WSTRB,
    input  logic s_axi_control_WVALID,
    output logic s_axi_control_WREADY,
    output logic [1:0] s_axi_control_BRESP,
    output logic s_axi_control_BVALID,
    input  logic s_axi_control_BREADY,
    input  logic [6:0] s_axi_control_ARADDR,
    input  logic s_axi_control_ARVALID,
    output logic s_axi_control_ARREADY,
    output logic [31:0] s_axi_control_RDATA,
    output logic [1:0] s_axi_control_RRESP,
    output logic s_axi_control_RVALID,
    input  logic s_axi_control_RREADY,
    output logic interrupt,
    output logic [63:0] m_axi_gmem_image_ARADDR,
    output logic [7:0] m_axi_gmem_image_ARLEN,
    output logic [2:0] m_axi_gmem_image_ARSIZE,
    output logic [1:0] m_axi_gmem_image_ARBURST,
    output logic m_axi_gmem_image_ARVALID,
    input  logic m_axi_gmem_image_ARREADY,
    input  logic [127:0] m_axi_gmem_image_RDATA,
    input  logic [1:0] m_axi_gmem_image_RRESP,
    input  logic m_axi_gmem_image_RLAST,
    input  logic m_axi_gmem_image_RVALID,
    output logic m_axi_gmem_image_RREADY,
    output logic [63:0] m_axi_gmem_weights_0_ARADDR,
    output logic [7:0] m_axi_gmem_weights_0_ARLEN,
    output logic [2:0] m_axi_gmem_weights_0_ARSIZE,
    output logic [1:0] m_axi_gmem_weights_0_ARBURST,
    output logic m_axi_gmem_weights_0_ARVALID,
    input  logic m_axi_gmem_weights_0_ARREADY,
    input  logic [31:0] m_axi_gmem_weights_0_RDATA,
    input  logic [1:0] m_axi_gmem_weights_0_RRESP,
    input  logic m_axi_gmem_weights_0_RLAST,
    input  logic m_axi_gmem_weights_0_RVALID,
    output logic m_axi_gmem_weights_0_RREADY,
    output logic [63:0] m_axi_gmem_output_AWADDR,
    output logic [7:0] m_axi_gmem_output_AWLEN,
    output logic [2:0] m_axi_gmem_output_AWSIZE,
    output logic [1:0] m_axi_gmem_output_AWBURST,
    output logic m_axi_gmem_output_AWVALID,
    input  logic m_axi_gmem_output_AWREADY,
    output logic [127:0] m_axi_gmem_output_WDATA,
    output logic [15:0] m_axi_gmem_output_WSTRB,
    output logic m_axi_gmem_output_WLAST,
    output logic m_axi_gmem_output_WVALID,
    input  logic m_axi_gmem_output_WREADY,
    input  logic [1:0] m_axi_gmem_output_BRESP,
    input  logic m_axi_gmem_output_BVALID,
    output logic m_axi_gmem_output_BREADY
);

  logic ap_start;
  logic ap_done;
  logic ap_idle;
  logic [63:0] image;
  logic [63:0] keys;
  logic [63:0] result;
  logic [15:0] beats;
  logic [7:0] fault;

  edgemoe_copier_control control (
      .*,
      .ap_ready(ap_done),
      .malformed(1'b0)
  );

  copier accelerator (.*);

endmodule
